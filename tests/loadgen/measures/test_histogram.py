"""Histograms: merging is exact, quantiles are close."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.measures.histogram import Histogram

LATENCIES = st.lists(st.floats(0.0, 1e4), max_size=200)


def of(values: list[float]) -> Histogram:
    histogram = Histogram()
    histogram.extend(values)
    return histogram


@given(LATENCIES, LATENCIES)
def test_merging_equals_having_seen_everything(left: list[float], right: list[float]) -> None:
    merged = of(left)
    merged.merge(of(right))
    assert merged == of(left + right) == of(right + left)


@given(LATENCIES.filter(bool), st.floats(0.001, 1.0))
def test_a_quantile_is_within_a_bucket_of_the_true_one(values: list[float], q: float) -> None:
    true = sorted(values)[math.ceil(q * len(values)) - 1]
    assert of(values).quantile(q) == pytest.approx(true, rel=1 / 64, abs=2e-9)


@given(LATENCIES.filter(bool))
def test_the_extremes_and_the_mean_are_exact(values: list[float]) -> None:
    histogram = of(values)
    assert histogram.quantile(1.0) <= max(values) == histogram.max_s
    assert histogram.min_s == min(values)
    assert histogram.mean_s == pytest.approx(sum(values) / len(values), abs=1e-9, rel=1e-9)


@given(LATENCIES)
def test_json_and_back_is_the_same(values: list[float]) -> None:
    histogram = of(values)
    assert Histogram.from_json(json.loads(json.dumps(histogram.to_json()))) == histogram


def test_nothing_has_no_latency() -> None:
    assert (Histogram().quantile(0.99), Histogram().mean_s, Histogram().count) == (0.0, 0.0, 0)


def test_a_share_within_a_limit() -> None:
    assert of([0.1] * 90 + [2.0] * 10).share_within(1.0) == 0.9
