"""The Kolmogorov-Smirnov test against its tables and against chance."""

import numpy as np
import pytest

from epidote_loadgen.measures.kolmogorov import ks_p_value, ks_statistic, ks_threshold


def test_the_threshold_is_the_tabulated_one() -> None:
    assert ks_threshold(100) == pytest.approx(0.1358, abs=1e-3)


def test_a_p_value_at_the_threshold_is_the_significance() -> None:
    assert ks_p_value(ks_threshold(1000), 1000) == pytest.approx(0.05, abs=1e-3)


def test_uniform_samples_pass_as_often_as_they_should() -> None:
    rng = np.random.default_rng(1)
    passed = [ks_statistic(rng.random(300), lambda x: x) < ks_threshold(300) for _ in range(400)]
    assert sum(passed) / 400 == pytest.approx(0.95, abs=0.04)
