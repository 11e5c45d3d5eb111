"""Send times: reproducible, of the asked rate and the asked distribution."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.arrivals.rate import constant, ramp, steps
from epidote_loadgen.arrivals.spacing import Even, Gamma, Poisson, Spacing, send_times
from epidote_loadgen.measures.kolmogorov import ks_statistic, ks_threshold


def times(spacing: Spacing, rps: float, *, seed: int, duration_s: float) -> np.ndarray:
    return np.array(list(send_times(spacing, constant(rps), seed=seed, duration_s=duration_s)))


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(times(Poisson(), 2000.0, seed=1, duration_s=20.0))
    found = ks_statistic(gaps, lambda gap: 1.0 - np.exp(-2000.0 * gap))
    assert found < ks_threshold(len(gaps), significance=0.01)


def test_the_test_of_gaps_notices_a_rate_that_is_five_percent_off() -> None:
    gaps = np.diff(times(Poisson(), 2000.0, seed=1, duration_s=20.0))
    found = ks_statistic(gaps, lambda gap: 1.0 - np.exp(-1900.0 * gap))
    assert found > ks_threshold(len(gaps), significance=0.01)


def test_poisson_counts_vary_as_they_should() -> None:
    counts, _ = np.histogram(times(Poisson(), 100.0, seed=2, duration_s=1000.0), bins=1000)
    assert counts.mean() == pytest.approx(100.0, rel=0.02)
    assert counts.var() / counts.mean() == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("cv", [0.5, 2.0])
def test_gamma_gaps_have_the_asked_variation(cv: float) -> None:
    gaps = np.diff(times(Gamma(cv), 50.0, seed=3, duration_s=2000.0))
    assert gaps.mean() == pytest.approx(0.02, rel=0.05)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.05)


def test_even_sends_are_even_and_begin_at_once() -> None:
    found = times(Even(), 4.0, seed=0, duration_s=1.0)
    assert found.tolist() == [0.0, 0.25, 0.5, 0.75]


@given(st.integers(0, 2**31), st.floats(1.0, 500.0))
def test_equal_seeds_give_equal_times_and_they_ascend(seed: int, rps: float) -> None:
    first = list(itertools.islice(send_times(Poisson(), constant(rps), seed=seed), 300))
    again = list(itertools.islice(send_times(Poisson(), constant(rps), seed=seed), 300))
    assert first == again
    assert first == sorted(first)


def test_more_requests_do_not_change_the_first_ones() -> None:
    short = list(send_times(Poisson(), constant(10.0), seed=5, num_requests=100))
    long = list(send_times(Poisson(), constant(10.0), seed=5, num_requests=10_000))
    assert long[:100] == short
    assert len(long) == 10_000


def test_a_ramp_sends_as_many_as_its_integral() -> None:
    found = list(send_times(Poisson(), ramp(0.0, 400.0, over_s=50.0), seed=4, duration_s=50.0))
    assert len(found) == pytest.approx(10_000, abs=4 * math.sqrt(10_000))
    first_half = sum(at_s < 25.0 for at_s in found)
    assert first_half / len(found) == pytest.approx(0.25, abs=0.02)


def test_a_rate_that_ends_at_zero_ends_the_run() -> None:
    found = list(send_times(Even(), steps([(0.0, 10.0), (1.0, 0.0)]), seed=0))
    assert len(found) == 11  # 0.0 to 1.0
    assert found[-1] == pytest.approx(1.0)


def test_a_burstiness_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="cv"):
        Gamma(0.0)
