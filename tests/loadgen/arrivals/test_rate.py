"""Rates: integrals and their inverses, profile by profile."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.arrivals.rate import Rate, constant, diurnal, ramp, steps

LEVELS = st.lists(
    st.tuples(st.floats(0.1, 50.0), st.floats(0.0, 100.0)), min_size=1, max_size=6
).filter(lambda points: points[-1][1] > 0.5)


def profile(widths_and_rates: list[tuple[float, float]]) -> Rate:
    times = np.cumsum([0.0, *(width for width, _ in widths_and_rates[:-1])])
    return Rate(tuple((float(t), rps) for t, (_, rps) in zip(times, widths_and_rates, strict=True)))


@given(LEVELS, st.floats(0.01, 500.0))
def test_the_time_of_a_count_is_when_so_many_were_expected(
    points: list[tuple[float, float]], count: float
) -> None:
    rate = profile(points)
    at_s = float(rate.times_of(np.array([count]))[0])
    assert rate.expected(at_s) == pytest.approx(count, rel=1e-6, abs=1e-6)


@given(LEVELS)
def test_times_ascend_with_counts(points: list[tuple[float, float]]) -> None:
    times = profile(points).times_of(np.linspace(0.0, 300.0, 200))
    assert (np.diff(times) >= -1e-9).all()


def test_a_step_takes_effect_at_its_time() -> None:
    rate = steps([(0.0, 5.0), (10.0, 20.0), (20.0, 0.0)])
    assert [rate.rps(t) for t in (-1.0, 0.0, 9.99, 10.0, 19.9, 20.0, 99.0)] == [
        0.0, 5.0, 5.0, 20.0, 20.0, 0.0, 0.0,
    ]  # fmt: skip
    assert rate.expected(30.0) == 250.0


def test_a_ramp_is_linear_and_then_steady() -> None:
    rate = ramp(0.0, 100.0, over_s=10.0)
    assert rate.rps(5.0) == 50.0
    assert rate.expected(10.0) == 500.0
    assert rate.rps(60.0) == 100.0


def test_a_count_that_is_never_reached_has_no_time() -> None:
    rate = steps([(0.0, 10.0), (1.0, 0.0)])
    assert rate.times_of(np.array([10.0]))[0] == pytest.approx(1.0)
    assert math.isinf(rate.times_of(np.array([10.5]))[0])


def test_a_day_has_its_mean_and_its_peak_at_noon() -> None:
    day = diurnal(50.0, peak_ratio=1.8)
    assert day.expected(86_400.0) == pytest.approx(50.0 * 86_400.0, rel=1e-9)
    assert day.rps(43_200.0) == pytest.approx(90.0)
    assert day.rps(0.0) == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("points", "complaint"),
    [
        ((), "first at time 0"),
        (((1.0, 5.0),), "first at time 0"),
        (((0.0, 5.0), (2.0, 1.0), (1.0, 1.0)), "ascend"),
        (((0.0, -1.0),), "from 0 to 1e\\+06 requests/s"),
        (((0.0, math.nan),), "from 0 to 1e\\+06 requests/s"),
    ],
)
def test_impossible_rates_are_refused(
    points: tuple[tuple[float, float], ...], complaint: str
) -> None:
    with pytest.raises(ValueError, match=complaint):
        Rate(points)


def test_a_night_below_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="peak_ratio"):
        diurnal(10.0, peak_ratio=2.5)


def test_constant_is_one_point() -> None:
    assert constant(3.0).expected(2.0) == 6.0
