"""What experts did lately becomes the planner's load: how uneven, and what would be better."""

import pytest

from epidote_core.expert_placement import Placement, placement_digest
from epidote_operator.observe.expert_moves import MoveWatch
from epidote_operator.observe.experts import HALF_LIFE_S, ExpertLook, ExpertWatch, Tokens
from epidote_operator.observe.gateway_client import FleetExperts, WorkerExperts
from epidote_planner.experts import ExpertLoad, ExpertMove

FIRST = ((10, 0, 5), (1, 1, 1))
LATER = ((16, 2, 5), (2, 3, 4))
GROWN = ((6.0, 2.0, 0.0), (1.0, 2.0, 3.0))
PLACED: Placement = ((0, 1, 2, 0),) * 2
BETTER: Placement = ((0, 1, 2, 1),) * 2


class Placer:
    """Proposes one move and notes what it was asked with."""

    def __init__(self) -> None:
        self.asked: list[Tokens] = []
        self.presents: list[tuple[Placement, int, float]] = []

    def make(self, present: Placement, ranks: int, slot_s: float) -> "Placer":
        self.presents.append((present, ranks, slot_s))
        return self

    def propose(self, tokens_per_expert: Tokens) -> ExpertMove | None:
        self.asked.append(tokens_per_expert)
        return ExpertMove(name="better", placement=BETTER, imbalance=1.1, migration_s=2.0)


def cut(tokens: tuple[tuple[int, ...], ...]) -> FleetExperts:
    """A fleet whose ranks share every expert."""
    return FleetExperts(tokens=tokens)


def placed(
    tokens: tuple[tuple[int, ...], ...], *placements: Placement, target: Placement = PLACED
) -> FleetExperts:
    digest = placement_digest(target)
    return FleetExperts(
        tokens=tokens,
        workers=tuple(
            WorkerExperts(
                worker_id=str(number),
                ranks=2,
                placement=placement_digest(placement),
                target=digest,
                is_moving=placement != target,
                slot_s=0.25,
            )
            for number, placement in enumerate(placements)
        ),
        placements={placement_digest(placement): placement for placement in placements},
    )


@pytest.fixture
def placer() -> Placer:
    return Placer()


@pytest.fixture
def watch(placer: Placer) -> ExpertWatch:
    return ExpertWatch(make_placer=placer.make, least_tokens=0.0)


def load(look: ExpertLook) -> ExpertLoad:
    assert look.load is not None
    return look.load


def test_imbalance_is_that_of_the_placement_in_force_and_a_placer_is_asked_with_what_was_counted(
    watch: ExpertWatch, placer: Placer
) -> None:
    assert watch.note(placed(FIRST, PLACED), 0.0).load is None
    seen = load(watch.note(placed(LATER, PLACED), 10.0, time_ratio=0.4))
    # expert 0 lies on both ranks: 3 + 2 and 0 + 3 tokens, 0.5 + 2 and 3 + 0.5 in the other layer
    assert seen.imbalance == pytest.approx((5.0 + 3.5) / (4.0 + 3.0))
    assert seen.expert_time_ratio == 0.4
    assert placer.asked == [GROWN]
    assert placer.presents == [(PLACED, 2, 0.25)]
    assert seen.proposal is not None
    assert seen.proposal.placement == BETTER


def test_workers_that_share_every_expert_are_never_out_of_balance(
    watch: ExpertWatch, placer: Placer
) -> None:
    watch.note(cut(FIRST), 0.0)
    look = watch.note(cut(LATER), 10.0)
    assert (load(look).imbalance, load(look).proposal, look.placed) == (1.0, None, None)
    assert placer.asked == []


def test_counts_fade_with_their_age(watch: ExpertWatch, placer: Placer) -> None:
    watch.note(placed(FIRST, PLACED), 0.0)
    watch.note(placed(LATER, PLACED), 10.0)
    more = tuple(tuple(count + 1 for count in layer) for layer in LATER)
    watch.note(placed(more, PLACED), 10.0 + HALF_LIFE_S)
    assert placer.asked[-1] == tuple(tuple(1.0 + c / 2 for c in layer) for layer in GROWN)


def test_few_tokens_move_nothing(placer: Placer) -> None:
    watch = ExpertWatch(make_placer=placer.make, least_tokens=3.0)
    watch.note(placed(FIRST, PLACED), 0.0)
    assert load(watch.note(placed(LATER, PLACED), 1.0)).proposal is None
    assert placer.asked == []


def test_nothing_is_proposed_while_a_move_is_on_its_way_nor_right_after_it(
    watch: ExpertWatch, placer: Placer
) -> None:
    watch.moves = MoveWatch(deadline_s=100.0, pause_s=60.0)
    grown = FIRST

    def look(now_s: float, *placements: Placement) -> ExpertLook:
        nonlocal grown
        grown = tuple(tuple(count + 7 for count in layer) for layer in grown)
        return watch.note(placed(grown, *placements, target=BETTER), now_s)

    look(0.0, PLACED, PLACED)
    under_way = look(15.0, BETTER, PLACED)
    assert load(under_way).proposal is None
    assert under_way.placed is not None
    assert under_way.placed.finding()[1] == "Moving"
    done = look(30.0, BETTER, BETTER)
    assert load(done).proposal is None
    assert done.placed is not None
    assert done.placed.finding()[1] == "Placed"
    assert load(look(80.0, BETTER, BETTER)).proposal is None
    assert load(look(91.0, BETTER, BETTER)).proposal is not None
    assert len(placer.asked) == 1


def test_an_operator_that_starts_in_the_middle_of_a_move_lets_it_go_on(
    watch: ExpertWatch, placer: Placer
) -> None:
    watch.note(placed(FIRST, BETTER, PLACED, target=BETTER), 5000.0)
    look = watch.note(placed(LATER, BETTER, PLACED, target=BETTER), 5015.0)
    assert placer.asked == []
    assert look.placed is not None
    assert look.placed.finding()[1] == "Moving"
    assert look.placed.target == placement_digest(BETTER)


def test_a_late_move_is_told_and_tried_again_with_longer_and_longer_breaks(
    watch: ExpertWatch, placer: Placer
) -> None:
    watch.moves = MoveWatch(deadline_s=100.0)
    grown, asked_at = FIRST, []
    for now_s in range(0, 1600, 20):
        grown = tuple(tuple(count + 7 for count in layer) for layer in grown)
        before = len(placer.asked)
        look = watch.note(placed(grown, BETTER, PLACED, target=BETTER), float(now_s))
        asked_at += [now_s] * (len(placer.asked) - before)
        assert look.placed is not None
        assert look.placed.finding()[1] == ("MoveLate" if asked_at else "Moving")
    assert asked_at == [100, 300, 700, 1500]
    assert "1 of 2 workers" in look.placed.finding()[2]


def test_what_a_worker_refuses_is_told_at_once() -> None:
    worker = WorkerExperts(
        worker_id="a", ranks=2, placement="p", target="t", is_moving=True, refusal="no such expert"
    )
    seen, may_propose = MoveWatch().look([worker], 1.5, 0.0)
    assert not may_propose
    assert seen.finding()[1] == "MoveLate"
    assert "no such expert" in seen.finding()[2]


def test_the_worst_of_several_placements_is_what_a_move_starts_from(
    watch: ExpertWatch, placer: Placer
) -> None:
    bad: Placement = ((0, 0, 1, 2),) * 2
    skewed = ((100, 1, 1), (100, 1, 1))
    seen = FleetExperts(
        tokens=FIRST,
        workers=tuple(
            WorkerExperts(worker_id=digest, ranks=2, placement=digest, target="", is_moving=False)
            for digest in ("good", "bad")
        ),
        placements={"good": PLACED, "bad": bad},
    )
    watch.note(seen, 0.0)
    grown = tuple(
        tuple(a + b for a, b in zip(*layers, strict=True))
        for layers in zip(FIRST, skewed, strict=True)
    )
    found = watch.note(
        FleetExperts(tokens=grown, workers=seen.workers, placements=seen.placements), 1.0
    )
    assert placer.presents[-1][0] == bad
    assert load(found).imbalance == pytest.approx((51.0 / 51.0 + 100.0 / 51.0) / 2)


def test_a_worker_that_left_costs_one_look(watch: ExpertWatch) -> None:
    watch.note(cut(LATER), 0.0)
    assert watch.note(cut(FIRST), 1.0).load is None
    assert watch.note(cut(LATER), 2.0).load is not None


def test_idle_experts_another_model_and_none_at_all_tell_nothing(watch: ExpertWatch) -> None:
    for tokens in (FIRST, FIRST, FIRST[:1], ((1,),), (), ()):
        assert watch.note(cut(tokens), 0.0).load is None
