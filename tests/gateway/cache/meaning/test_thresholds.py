"""This file is about thresholds whose hits are right often enough, and none where that can't be."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_gateway.cache.meaning.break_even import break_even_hit_ratio
from epidote_gateway.cache.meaning.thresholds import (
    is_surely_below,
    least_threshold,
    outside_floor,
)
from epidote_gateway.cache.meaning.trials import Trials


def trials(rows: list[tuple[float, bool]], outside: tuple[float, ...] = ()) -> Trials:
    similarity = [row[0] for row in rows] + list(outside)
    return Trials(
        similarity=np.array(similarity, np.float32),
        is_right=np.array([row[1] for row in rows] + [False] * len(outside), np.bool_),
        category=np.array(["c"] * len(similarity)),
        is_outside=np.array([False] * len(rows) + [True] * len(outside), np.bool_),
    )


RIGHT_ABOVE = [(0.5 + number / 2000, True) for number in range(1000)]
WRONG_BELOW = [(0.3 + number / 2000, False) for number in range(400)]


def test_threshold_lies_where_right_and_wrong_part() -> None:
    found = least_threshold(trials(RIGHT_ABOVE + WRONG_BELOW), precision=0.95, confidence=0.95)
    assert found.value is not None
    assert 0.47 < found.value < 0.5
    assert found.num_hits > 1000
    assert found.precision >= 0.95


def test_few_examples_need_a_higher_precision_than_wanted() -> None:
    few = least_threshold(trials(RIGHT_ABOVE[:60] + WRONG_BELOW), precision=0.95, confidence=0.95)
    assert few.num_wrong == 0
    assert least_threshold(trials(RIGHT_ABOVE[:58]), precision=0.95, confidence=0.95).value is None


def test_questions_out_of_scope_count_as_wrong_hits() -> None:
    outside = tuple(0.6 + number / 1000 for number in range(100))
    with_them = least_threshold(trials(RIGHT_ABOVE, outside), precision=0.95, confidence=0.95)
    without = least_threshold(trials(RIGHT_ABOVE), precision=0.95, confidence=0.95)
    assert with_them.value is not None
    assert without.value is not None
    assert with_them.value > without.value


def test_a_category_that_is_always_wrong_gets_no_threshold() -> None:
    found = least_threshold(trials(WRONG_BELOW), precision=0.95, confidence=0.95)
    assert found.value is None
    assert found.hit_ratio == 0.0


def test_no_trials_get_no_threshold() -> None:
    assert least_threshold(trials([]), precision=0.95, confidence=0.95).value is None


def test_equal_similarities_are_taken_together() -> None:
    rows = [(0.8, True)] * 100 + [(0.8, False)] * 20
    assert least_threshold(trials(rows), precision=0.95, confidence=0.95).value is None


@given(
    st.lists(st.tuples(st.floats(-1, 1, width=32), st.booleans()), max_size=60),
    st.floats(0.5, 0.99),
)
def test_hits_at_the_threshold_are_as_precise_as_promised(
    rows: list[tuple[float, bool]], precision: float
) -> None:
    found = least_threshold(trials(rows), precision=precision, confidence=0.8)
    if found.value is not None:
        served = [right for similarity, right in rows if similarity >= found.value]
        assert sum(served) >= precision * len(served)


@pytest.mark.parametrize(
    ("wrong", "total", "share", "expected"),
    # Clopper-Pearson upper bounds: 0/59 -> 0.0495, 1/93 -> 0.0500, 0/298 -> 0.0100
    [(0, 59, 0.05, True), (0, 58, 0.05, False), (1, 93, 0.05, True), (1, 92, 0.05, False),
     (0, 299, 0.01, True), (0, 298, 0.01, False), (5, 5, 0.5, False), (0, 0, 0.5, False)],
)  # fmt: skip
def test_bound_agrees_with_known_values(
    wrong: int, total: int, share: float, expected: bool
) -> None:
    assert is_surely_below(wrong, total, share, 0.95) is expected


def test_floor_lets_no_more_strangers_through_than_wanted() -> None:
    strangers = np.linspace(0, 1, 1001, dtype=np.float32)
    floor, is_sure = outside_floor(strangers, share=0.05, confidence=0.95)
    assert is_sure
    assert 0.0 < (strangers >= floor).mean() <= 0.05


def test_floor_is_above_all_strangers_where_there_are_too_few() -> None:
    floor, is_sure = outside_floor(np.array([0.2, 0.7], np.float32), share=0.01, confidence=0.95)
    assert not is_sure
    assert floor > 0.7
    assert outside_floor(np.zeros(0, np.float32), share=0.01, confidence=0.95) == (-1.0, False)


def test_break_even_rises_with_cost_and_with_fast_models() -> None:
    slow = break_even_hit_ratio(search_s=0.002, fetch_s=0.005, answer_s=0.2)
    fast = break_even_hit_ratio(search_s=0.002, fetch_s=0.005, answer_s=0.1)
    assert slow == pytest.approx(0.0103, abs=1e-4)
    assert fast == pytest.approx(0.0211, abs=1e-4)
    with pytest.raises(ValueError, match="answer_s: must be at least 0 s, got -1"):
        break_even_hit_ratio(search_s=0.0, fetch_s=0.0, answer_s=-1)
