"""Intervals: their level, what clustering does to them, and how many more requests settle it."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_loadgen.verdict.interval import design_effect, more_requests, wilson


@pytest.mark.parametrize(
    ("met", "total", "low", "high"),
    [  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_is_the_published_one(met: int, total: int, low: float, high: float) -> None:
    found = wilson(met, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.5, 0.999))
def test_an_interval_holds_the_share_and_stays_inside(
    met: int, missed: int, confidence: float
) -> None:
    found = wilson(met, met + missed, confidence=confidence)
    assert 0.0 <= found.low <= found.high <= 1.0
    if met + missed:
        assert found.low <= met / (met + missed) <= found.high


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = Random(7)
    covered = 0
    for _ in range(2000):
        met = sum(rng.random() < 0.97 for _ in range(400))
        found = wilson(met, 400)
        covered += found.low <= 0.97 <= found.high
    assert covered / 2000 == pytest.approx(0.95, abs=0.02)


def test_independent_misses_are_worth_what_they_are() -> None:
    rng = Random(3)
    effects = [design_effect([rng.random() < 0.95 for _ in range(3000)]) for _ in range(40)]
    assert sum(effects) / 40 < 1.3


def test_misses_in_one_stretch_are_worth_less() -> None:
    flags = [True] * 3000
    flags[1000:1150] = [False] * 150
    assert design_effect(flags) > 50


def test_what_takes_turns_is_no_cluster() -> None:
    assert design_effect([True, False] * 20) == 1.0


def test_a_short_run_sees_its_clusters_too() -> None:
    flags = [True] * 60
    flags[20:30] = [False] * 10
    spread = [at % 6 != 3 for at in range(60)]
    assert sum(flags) == sum(spread)
    assert design_effect(flags) > 5.0
    assert design_effect(spread) == 1.0


def clustered(rng: Random, num: int, *, share: float, length: float) -> list[bool]:
    """A two-state chain: misses come in stretches of `length` on average."""
    leaves, enters = 1.0 / length, (1.0 - share) / share / length
    state, found = rng.random() < share, []
    for _ in range(num):
        found.append(state)
        state = rng.random() >= enters if state else rng.random() < leaves
    return found


@pytest.mark.parametrize(("num", "at_least"), [(200, 0.87), (1000, 0.91)])
def test_the_interval_covers_the_share_though_misses_cluster(num: int, at_least: float) -> None:
    """Without the design effect, half of these intervals would lie beside the truth."""
    rng = Random(5)
    covered = naive = 0
    for _ in range(400):
        flags = clustered(rng, num, share=0.9, length=5.0)
        effect = design_effect(flags)
        found = wilson(sum(flags) / effect, num / effect)
        covered += found.low <= 0.9 <= found.high
        without = wilson(sum(flags), num)
        naive += without.low <= 0.9 <= without.high
    assert covered / 400 > at_least
    assert naive / 400 < 0.7


@given(st.integers(1, 3000), st.integers(0, 300), st.sampled_from([0.9, 0.95, 0.99]))
def test_so_many_more_requests_settle_it_and_one_fewer_does_not(
    met: int, missed: int, ratio: float
) -> None:
    total = met + missed
    more = more_requests(met, total, ratio)
    if not more:
        return
    share = met / total
    for num, settled in ((total + more, True), (total + more - 1, False)):
        found = wilson(share * num, num)
        assert (found.low >= ratio or found.high < ratio) is settled


def test_a_share_that_is_the_ratio_itself_is_never_settled() -> None:
    assert more_requests(99, 100, 0.99) is None


def test_a_settled_share_needs_no_more() -> None:
    assert more_requests(500, 1000, 0.99) == 0
