"""A placement is a table that every layer's experts are found in, and whose balance is known."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.errors import InvalidRequest
from epidote_core.expert_placement import check_placement, default_placement, imbalance

SIZES = {"num_layers": 2, "num_experts": 3, "num_slots": 4}


@given(st.integers(0, 5), st.integers(1, 9), st.integers(0, 20))
def test_a_model_starts_with_a_valid_placement(layers: int, experts: int, redundant: int) -> None:
    slots = experts + redundant
    placement = default_placement(layers, experts, slots)
    check_placement(placement, num_layers=layers, num_experts=experts, num_slots=slots)


@pytest.mark.parametrize(
    ("placement", "field", "message"),
    [
        ([[0, 1, 2, 0]], "placement", "must have 2 layers, got 1"),
        ([[0, 1, 2, 0], [0, 1, 2]], "placement[1]", "must have 4 slots, got 3"),
        ([[0, 1, 2, 3], [0, 1, 2, 0]], "placement[0][3]", "must be from 0 to 2, got 3"),
        ([[0, 1, 2, 0], [-1, 0, 1, 2]], "placement[1][0]", "must be from 0 to 2, got -1"),
        ([[0, True, 2, 1], [0, 1, 2, 0]], "placement[0][1]", "must be from 0 to 2, got True"),
        ([[0, 1, 1, 0], [0, 1, 2, 0]], "placement[0]", "expert 2 has no slot"),
    ],
)
def test_the_first_fault_is_named(placement: list[list[int]], field: str, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message) as found:
        check_placement(placement, **SIZES)
    assert found.value.field == field
    assert str(found.value).startswith(f"{field}: ")


def test_layers_wait_for_their_own_busiest_rank() -> None:
    tokens = [[9.0, 1.0], [1.0, 9.0]]  # equal sums on both ranks, and yet no layer is balanced
    assert imbalance(tokens, [[0, 1], [0, 1]], 2) == pytest.approx(1.8)


@given(st.data(), st.integers(1, 4), st.integers(1, 4))
def test_imbalance_lies_between_even_and_one_rank_for_all(
    data: st.DataObject, ranks: int, each: int
) -> None:
    slots = ranks * each
    experts = data.draw(st.integers(1, slots))
    tokens = [data.draw(st.lists(st.integers(0, 99), min_size=experts, max_size=experts))]
    rest = data.draw(
        st.lists(st.integers(0, experts - 1), min_size=slots - experts, max_size=slots - experts)
    )
    layer = data.draw(st.permutations([*range(experts), *rest]))
    found = imbalance(tokens, [layer], ranks)
    assert 1.0 <= found <= ranks + 1e-9
    assert imbalance(tokens, [layer], 1) == pytest.approx(1.0)


def test_nothing_counted_is_balanced() -> None:
    assert imbalance([[0.0, 0.0]], [[0, 1]], 2) == 1.0
    assert imbalance([], [], 2) == 1.0
