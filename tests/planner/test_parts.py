"""The planner's smaller parts, each on its own."""

import subprocess
import sys
from dataclasses import replace
from math import sin, tau
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.roles import Role, WorkerState
from epidote_core.slo import Slo, attainment
from epidote_core.timing import RequestTiming
from epidote_planner.correction import observe_corrections, observe_margins
from epidote_planner.damping import PoolNeed, remember_need
from epidote_planner.distribution import WEIGHTS, Distribution
from epidote_planner.experts import ExpertLoad, ExpertMove, net_gain_s, worthwhile_move
from epidote_planner.fakes import PROFILE, policy, snapshot, workers
from epidote_planner.forecast import Series, advance, forecast
from epidote_planner.groups import (
    LanePressure,
    burst_tolerance,
    donate_cost,
    preemption,
    receive_gain,
    share_spare,
)
from epidote_planner.lane import Lane
from epidote_planner.memory import PlannerMemory
from epidote_planner.policy import DemandPolicy, PressurePolicy
from epidote_planner.pressure import NO_PRESSURE, advise
from epidote_planner.snapshot import ServiceSample

TEXT, MEDIA = Lane("text", Role.PREFILL), Lane("media", Role.PREFILL)


@given(st.lists(st.floats(0.0, 1e4), min_size=1, max_size=50))
def test_points_of_a_distribution_keep_its_mean(samples: list[float]) -> None:
    seen = Distribution.of(samples)
    points = zip(WEIGHTS, seen.points(), strict=True)
    assert sum(w * v for w, v in points) == pytest.approx(seen.mean, abs=1e-6)


def test_slope_is_followed_ahead() -> None:
    rules = DemandPolicy(smoothing_s=10.0, trend_s=60.0)
    series = None
    for tick in range(60):
        series = advance(series, 10.0 + tick, at_s=10.0 * tick, ahead_s=60.0, policy=rules)
    assert series is not None
    assert forecast(series, ahead_s=60.0, policy=rules) == pytest.approx(74.0, rel=0.1)


def test_season_is_remembered_where_the_slope_knows_nothing() -> None:
    rules = DemandPolicy(season_s=2400.0, season_buckets=24, smoothing_s=10.0)
    series: Series | None = None
    for tick in range(5 * 240):
        value = 20.0 + 10.0 * sin(tau * tick / 240)
        series = advance(
            series, value, at_s=10.0 * tick, ahead_s=300.0, policy=rules, seasonal=True
        )
    assert series is not None
    ahead = 20.0 + 10.0 * sin(tau * (tick + 30) / 240)
    assert forecast(series, ahead_s=300.0, policy=rules) == pytest.approx(ahead, rel=0.15)


def test_forecast_error_grows_with_surprises_and_only_with_bad_ones() -> None:
    rules = DemandPolicy(error_s=300.0)

    def error_of(values: list[float]) -> float:
        series: Series | None = None
        for tick, value in enumerate(values):
            series = advance(series, value, at_s=10.0 * tick, ahead_s=60.0, policy=rules)
        assert series is not None
        return series.error

    assert error_of([10.0] * 60) == 0.0
    assert error_of([10.0] * 30 + [30.0] * 30) > 5.0
    assert error_of([30.0] * 30 + [10.0] * 30) < 2.0


def test_young_series_is_the_mean_of_all_it_has_seen() -> None:
    """Else the first of its observations would count for as long as the smoothing lasts."""
    rules = DemandPolicy(smoothing_s=1800.0)
    series: Series | None = None
    for tick, value in enumerate([90.0, 10.0, 20.0, 40.0]):
        series = advance(series, value, at_s=5.0 * tick, ahead_s=0.0, policy=rules)
    assert series is not None
    assert series.level == pytest.approx(40.0)


def test_old_window_changes_nothing() -> None:
    series = advance(None, 5.0, at_s=100.0, ahead_s=10.0, policy=DemandPolicy())
    assert advance(series, 99.0, at_s=100.0, ahead_s=10.0, policy=DemandPolicy()) is series


@given(
    st.lists(st.tuples(st.integers(1, 5), st.floats(0.1, 10.0)), min_size=2, max_size=6),
    st.integers(0, 20),
)
def test_spare_workers_raise_the_least_tolerance_as_far_as_possible(
    lanes: list[tuple[int, float]], spare: int
) -> None:
    """Greedy against the bound: the least tolerance t needs ceil(t * load) workers everywhere."""
    allocation = {Lane(str(i), Role.DECODE): count for i, (count, _) in enumerate(lanes)}
    loads = {Lane(str(i), Role.DECODE): load for i, (_, load) in enumerate(lanes)}
    shared = share_spare(allocation, loads, dict.fromkeys(allocation, 10**6), spare)
    assert sum(shared.values()) == sum(allocation.values()) + spare
    least = min(burst_tolerance(shared[lane], loads[lane]) for lane in shared)
    better = least * (1.0 + 1e-9)
    needed = sum(max(allocation[lane], int(better * loads[lane]) + 1) for lane in allocation)
    assert needed > sum(shared.values())


def test_tolerance_depends_on_the_allocation() -> None:
    """The published code's version is constant in it, and hands one group everything."""
    shared = share_spare({TEXT: 1, MEDIA: 1}, {TEXT: 1.0, MEDIA: 1.0}, {TEXT: 9, MEDIA: 9}, 6)
    assert shared == {TEXT: 4, MEDIA: 4}


def test_preemption_takes_from_the_lane_that_loses_least() -> None:
    jammed = LanePressure(workers=2, waiting_work_s=60.0, waiting_tokens=2000.0)
    idle = LanePressure(workers=3)
    busy = LanePressure(workers=3, running_work_s=90.0, running_tokens=100.0, num_running=30)
    third = Lane("other", Role.DECODE)
    found = preemption(
        {MEDIA: jammed, TEXT: idle, third: busy},
        {TEXT: 0.1, third: 0.1},
        penalty=0.05,
        horizon=1.0,
    )
    assert found == (TEXT, MEDIA)
    assert preemption({MEDIA: idle, TEXT: idle}, {TEXT: 0.1}, penalty=1.0, horizon=1.0) is None


def test_gain_and_cost_follow_the_paper_sums() -> None:
    queue = LanePressure(workers=1, waiting_work_s=10.0, waiting_tokens=100.0)
    assert receive_gain(queue) == pytest.approx((10.0 - 5.0) / 100.0)
    running = LanePressure(workers=2, running_work_s=8.0, running_tokens=40.0, num_running=4)
    cost = donate_cost(running, move_s=0.1, penalty=0.5)
    assert cost == pytest.approx((0.1 * 2 + 0.5 * (8.0 - 4.0)) / 40.0)
    assert donate_cost(LanePressure(workers=1), move_s=0.1, penalty=0.5) == float("inf")


def test_observed_step_times_correct_the_profile_within_bounds() -> None:
    slow = ServiceSample(seconds=3.0 * PROFILE.decode.seconds(10, 5000), sequences=10, context=5000)
    warm = replace(workers(0, 0, 1)[0], since_s=0.0, sample=slow)
    seen = snapshot(1000.0, (warm,), ())
    corrected = observe_corrections(seen, {}, 1e6, policy())
    assert corrected[Role.DECODE.value] == pytest.approx(2.0)  # bounded
    cold = replace(warm, since_s=990.0)
    assert observe_corrections(snapshot(1000.0, (cold,), ()), {}, 1e6, policy()) == {}
    away = replace(warm, state=WorkerState.DRAINING)
    assert observe_corrections(snapshot(1000.0, (away,), ()), {}, 1e6, policy()) == {}


def test_margin_stays_inside_its_bounds_and_ignores_small_samples() -> None:
    rules = policy()
    margins: dict[str, float] = {}
    for tick in range(500):
        margins = observe_margins(snapshot(10.0 * tick, (), (), met=0.5), margins, 10.0, rules)
    assert margins["ttft"] == rules.capacity.margin_max
    for tick in range(5000):
        margins = observe_margins(snapshot(10.0 * tick, (), ()), margins, 10.0, rules)
    assert margins["ttft"] == -rules.capacity.headroom_ratio
    few = replace(
        snapshot(0.0, (), (), met=0.0),
        attainment=replace(snapshot(0.0, (), (), met=0.0).attainment, num_requests=3),  # type: ignore[type-var]
    )
    assert observe_margins(few, {}, 10.0, rules) == {}


def test_pressure_waits_for_the_hold_and_leaves_with_hysteresis() -> None:
    rules = PressurePolicy(max_shed_ratio=0.5)
    first = advise(15.0, 10, None, 0.0, rules)
    assert first.advice == NO_PRESSURE
    held = advise(15.0, 10, first.overloaded_since_s, 31.0, rules)
    assert held.advice.cache_pressure == 0.5
    assert held.advice.shed_ratio == 0.33
    between = advise(9.0, 10, held.overloaded_since_s, 40.0, rules)
    assert between.overloaded_since_s == 0.0
    assert advise(7.0, 10, between.overloaded_since_s, 50.0, rules).overloaded_since_s is None


@given(st.floats(1.0, 4.0), st.floats(0.0, 1.0), st.floats(1.0, 4.0), st.floats(0.0, 600.0))
def test_expert_move_is_taken_only_for_a_net_gain(
    before: float, share: float, after: float, migration_s: float
) -> None:
    move = ExpertMove(name="m", imbalance=after, migration_s=migration_s)
    load = ExpertLoad(imbalance=before, expert_time_ratio=share, proposal=move)
    if worthwhile_move(load, horizon_s=300.0, cost_factor=2.0) is not None:
        assert net_gain_s(load, horizon_s=300.0) > 0.0


def test_failed_requests_never_meet_the_slo() -> None:
    slo = Slo(ttft_s=1.0, tpot_s=0.1)
    good = RequestTiming(arrival_s=0.0, first_token_s=0.5, finished_s=1.4, num_output_tokens=10)
    assert attainment([good, replace(good, failed=True)], slo) == 0.5


def test_planner_imports_without_anything_but_the_standard_library() -> None:
    code = (
        "import sys, epidote_planner.text_adapter as _\n"
        "heavy = {'torch', 'ray', 'kopf', 'numpy', 'fastapi', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_smoother_forecast_counts_through_noise_and_the_quicker_one_after_a_step() -> None:
    rules = policy()
    random = Random(3)
    memory = PlannerMemory()
    now_s = 0.0

    def follow(mean: float, ticks: int) -> PoolNeed:
        nonlocal memory, now_s
        for _ in range(ticks):
            now_s += 10.0
            found = remember_need(memory, mean + random.gauss(0.0, 1.5), now_s, rules)
            memory = replace(memory, pool_need=found.quick, pool_steady=found.steady)
        return found

    noisy = follow(16.0, 720)
    assert noisy.better is noisy.steady
    fallen = follow(4.0, 60)  # ten minutes after the load has gone
    assert fallen.better is fallen.quick
    assert fallen.better.level < 6.0 < fallen.steady.level
