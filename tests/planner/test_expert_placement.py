"""Where a placer puts experts: laws for any load, and the cases that they are made for."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.expert_placement import (
    Placement,
    check_placement,
    default_placement,
    imbalance,
)
from epidote_planner.expert_placement import BalancingPlacer, num_moved

Tokens = tuple[tuple[float, ...], ...]


@st.composite
def fleets(draw: st.DrawFn) -> tuple[Tokens, Placement, int]:
    """Loads, a valid placement that any moves may have led to, and the ranks."""
    ranks, each = draw(st.integers(2, 4)), draw(st.integers(1, 5))
    num_slots = ranks * each
    num_experts = draw(st.integers(1, num_slots))
    layers = draw(st.integers(1, 3))
    counts = st.lists(st.integers(0, 10_000), min_size=num_experts, max_size=num_experts)
    tokens = tuple(tuple(map(float, draw(counts))) for _ in range(layers))
    random = Random(draw(st.integers(0, 99)))
    placement = []
    for _ in range(layers):
        slots = [*range(num_experts)]
        slots += [random.randrange(num_experts) for _ in range(num_slots - num_experts)]
        random.shuffle(slots)
        placement.append(tuple(slots))
    return tokens, tuple(placement), ranks


@given(fleets())
def test_every_expert_has_a_slot_and_the_ranks_equally_many(
    fleet: tuple[Tokens, Placement, int],
) -> None:
    tokens, present, ranks = fleet
    move = BalancingPlacer(present=present, ranks=ranks).propose(tokens)
    if move is not None:
        check_placement(
            move.placement,
            num_layers=len(present),
            num_experts=len(tokens[0]),
            num_slots=len(present[0]),
        )


@given(fleets())
def test_a_move_wins_in_what_it_says_and_never_loses(fleet: tuple[Tokens, Placement, int]) -> None:
    tokens, present, ranks = fleet
    move = BalancingPlacer(present=present, ranks=ranks, expert_s=0.5).propose(tokens)
    if move is not None:
        assert move.imbalance == pytest.approx(imbalance(tokens, move.placement, ranks))
        assert move.imbalance < imbalance(tokens, present, ranks)
        assert 0 < move.num_moved == num_moved(present, move.placement)
        assert move.migration_s == pytest.approx(0.5 * move.num_moved)


@given(fleets())
def test_after_a_move_there_is_nothing_left_to_move(fleet: tuple[Tokens, Placement, int]) -> None:
    """Else the same counts would have experts go round for ever."""
    tokens, present, ranks = fleet
    move = BalancingPlacer(present=present, ranks=ranks).propose(tokens)
    if move is not None:
        assert BalancingPlacer(present=move.placement, ranks=ranks).propose(tokens) is None


@given(st.integers(2, 4), st.integers(1, 4), st.integers(0, 1000))
def test_even_loads_are_left_alone(ranks: int, each: int, count: int) -> None:
    present = default_placement(2, ranks * each, ranks * each)
    tokens = ((float(count),) * (ranks * each),) * 2
    assert BalancingPlacer(present=present, ranks=ranks).propose(tokens) is None


def test_hot_experts_leave_the_rank_that_they_share_and_the_others_stay() -> None:
    present = ((0, 1, 2, 3, 4, 5, 6, 7),)
    tokens = ((90.0, 90.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0),)
    move = BalancingPlacer(present=present, ranks=2).propose(tokens)
    assert move is not None
    assert move.imbalance == pytest.approx(1.0)
    assert move.num_moved == 2  # one of the hot ones changes places with a cold one


def test_an_expert_hotter_than_a_rank_gets_redundant_slots_on_other_ranks() -> None:
    present = default_placement(1, 6, 8)
    tokens = ((700.0, 50.0, 50.0, 50.0, 50.0, 50.0),)
    move = BalancingPlacer(present=present, ranks=4).propose(tokens)
    assert move is not None
    slots = move.placement[0]
    assert slots.count(0) == 3  # no other expert is worth a second slot
    assert all(slots[rank * 2 : rank * 2 + 2].count(0) <= 1 for rank in range(4))
    assert imbalance(tokens, present, 4) > 1.5
    assert move.imbalance < 1.2  # a third of it and a cold one: no rank can have less


def test_layers_that_are_even_stay_while_a_skewed_one_moves() -> None:
    present = default_placement(3, 4, 4)
    tokens = ((1.0,) * 4, (9.0, 9.0, 1.0, 1.0), (1.0,) * 4)
    move = BalancingPlacer(present=present, ranks=2).propose(tokens)
    assert move is not None
    assert [was == now for was, now in zip(present, move.placement, strict=True)] == [
        True, False, True,
    ]  # fmt: skip


def test_counts_of_another_model_lead_to_no_move() -> None:
    placer = BalancingPlacer(present=default_placement(2, 4, 4), ranks=2)
    assert placer.propose(((9.0, 1.0, 1.0, 1.0),)) is None
    assert placer.propose(((9.0, 1.0, 1.0),) * 2) is None
    assert placer.propose(()) is None


def test_a_model_of_usual_size_is_balanced_to_a_few_percent() -> None:
    """48 layers of 128 experts on 8 ranks, 16 redundant slots, loads as Zipf would have them."""
    random = Random(7)
    tokens = []
    for _ in range(48):
        ranking = random.sample(range(128), 128)
        tokens.append(tuple(1e5 / (1 + place) ** 0.8 for place in ranking))
    present = default_placement(48, 128, 144)
    move = BalancingPlacer(present=present, ranks=8).propose(tuple(tokens))
    assert move is not None
    assert imbalance(tokens, present, 8) > 1.4
    assert move.imbalance < 1.1
    assert move.num_moved < 48 * 144 / 3  # packing anew would move nearly all of them
