"""The way from one placement to another: every expert stands somewhere after every step of it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_engine.expert_spec import ExpertSlots
from epidote_engine.parallel.slot_changes import replica_table, slot_changes


@st.composite
def placements(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """Two placements of one layer."""
    experts, redundant = draw(st.integers(1, 12)), draw(st.integers(0, 6))
    rest = st.lists(st.integers(0, experts - 1), min_size=redundant, max_size=redundant)
    first, second = (draw(st.permutations([*range(experts), *draw(rest)])) for _ in range(2))
    return first, second


@given(placements(), st.integers(2, 5))
def test_every_step_is_small_and_leaves_every_expert_somewhere(
    pair: tuple[list[int], list[int]], most: int
) -> None:
    now, target = list(pair[0]), pair[1]
    to_change = sum(a != b for a, b in zip(now, target, strict=True))
    writes = 0
    for change in slot_changes(now, target, most):
        assert 1 <= len(change) <= most
        right = [slot for slot in range(len(now)) if now[slot] == target[slot]]
        for slot, expert in change.items():
            assert now[slot] != expert
            now[slot] = expert
        writes += len(change)
        assert set(now) == set(target)
        assert all(now[slot] == target[slot] for slot in right)  # what is right stays
        assert sum(a == b for a, b in zip(now, target, strict=True)) > len(right)
    assert now == target
    assert writes <= 2 * to_change


def test_a_ring_longer_than_a_step_costs_one_more_write_a_step() -> None:
    now, target = list(range(12)), [*range(1, 12), 0]
    changes = list(slot_changes(now, target, 4))
    assert [len(change) for change in changes] == [4, 4, 4, 3]


@given(placements(), st.integers(1, 4))
def test_every_replica_is_in_one_rank_s_table_and_in_its_turn(
    pair: tuple[list[int], list[int]], num_ranks: int
) -> None:
    layer = pair[0] * num_ranks  # a number of slots that the ranks can share out
    experts = len(set(layer))
    ranks = [
        ExpertSlots(num_slots=len(layer), num_ranks=num_ranks, rank=rank)
        for rank in range(num_ranks)
    ]
    tables = [replica_table(layer, experts, slots) for slots in ranks]
    assert [slot for slots in ranks for slot in slots.own] == list(range(len(layer)))
    counts = Counter(layer)
    for expert in range(experts):
        found = []
        for turn in range(1, 1 + counts[expert]):
            places = [
                slots.own[table[expert][turn]]
                for slots, table in zip(ranks, tables, strict=True)
                if table[expert][turn] >= 0
            ]
            assert len(places) == 1  # one rank computes it
            found += places
        assert found == [slot for slot, who in enumerate(layer) if who == expert]
        assert all(table[expert][0] == counts[expert] for table in tables)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_table_has_room_for_an_expert_in_every_redundant_slot(rank: int) -> None:
    slots = ExpertSlots(num_slots=4, num_ranks=2, rank=rank)
    table = replica_table([1, 1, 0, 1], 2, slots)
    assert table[1] == ([3, 0, 1, -1] if rank == 0 else [3, -1, -1, 1])
