"""Counters of experts become the planner's load: what they did between two looks."""

from epidote_operator.observe.experts import ExpertWatch, Tokens
from epidote_planner.experts import ExpertMove

FIRST = ((10, 0, 5), (1, 1, 1))
LATER = ((16, 2, 5), (2, 3, 4))
GROWN = ((6.0, 2.0, 0.0), (1.0, 2.0, 3.0))


class Placer:
    """Proposes one move and notes what it was asked with."""

    def __init__(self) -> None:
        self.asked: list[Tokens] = []

    def propose(self, tokens_per_expert: Tokens) -> ExpertMove | None:
        self.asked.append(tokens_per_expert)
        return ExpertMove(name="better", imbalance=1.1, migration_s=2.0)


def test_a_placer_is_asked_with_what_was_counted_between_two_looks() -> None:
    placer = Placer()
    watch = ExpertWatch(placer=placer, imbalance=lambda tokens: max(tokens[0]) / 2, time_ratio=0.4)
    assert watch.note(FIRST) is None
    load = watch.note(LATER)
    assert placer.asked == [GROWN]
    assert load is not None
    assert (load.imbalance, load.expert_time_ratio) == (3.0, 0.4)
    assert load.proposal is not None
    assert load.proposal.name == "better"


def test_devices_that_share_every_expert_are_never_out_of_balance() -> None:
    watch = ExpertWatch()
    watch.note(FIRST)
    load = watch.note(LATER)
    assert load is not None
    assert (load.imbalance, load.proposal) == (1.0, None)


def test_a_worker_that_left_costs_one_look() -> None:
    watch = ExpertWatch()
    watch.note(LATER)
    assert watch.note(FIRST) is None
    assert watch.note(LATER) is not None


def test_idle_experts_another_model_and_none_at_all_tell_nothing() -> None:
    watch = ExpertWatch()
    for tokens in (FIRST, FIRST, FIRST[:1], ((1,),), (), ()):
        assert watch.note(tokens) is None
