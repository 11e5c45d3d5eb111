"""Figures that cannot be, and clocks that step: held, named, and forgotten."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from epidote_core.roles import Role
from epidote_planner.decision import Plan, Reason
from epidote_planner.fakes import PretendCluster, image_traffic, policy, quiet_signals, snapshot
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.snapshot import (
    Attainment,
    CacheSignals,
    ClusterSnapshot,
    RoleSignals,
    ServiceSample,
)

DAY_S = 86_400.0
NONSENSE = (float("nan"), float("inf"), float("-inf"), -5.0, 1e300)


def settled(rps: float = 20.0) -> PretendCluster:
    cluster = PretendCluster(policy=policy(), now_s=10_000.0)
    cluster.run(60, image_traffic(rps))
    return cluster


def observe(cluster: PretendCluster, change: Callable[[ClusterSnapshot], ClusterSnapshot]) -> Plan:
    """One plan on a changed observation; the cluster keeps its memory and carries nothing out."""
    seen = change(snapshot(cluster.now_s + 10.0, cluster.fleet, (image_traffic(20.0),)))
    decided = plan(seen, cluster.policy, cluster.memory)
    cluster.memory = decided.memory
    cluster.now_s += 10.0
    return decided


def assert_sound(memory: PlannerMemory | None) -> None:
    assert memory is not None
    json.dumps(memory.to_json(), allow_nan=False)


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize(
    ("field", "change"),
    [
        (
            "traffic.image.arrival_rps",
            lambda s, v: replace(s, traffic=(replace(s.traffic[0], arrival_rps=v),)),
        ),
        (
            "cache.response_hit_ratio",
            lambda s, v: replace(s, cache=CacheSignals(response_hit_ratio=v)),
        ),
        ("cache.prefix_hit_ratio", lambda s, v: replace(s, cache=CacheSignals(prefix_hit_ratio=v))),
        (
            "cache.encoder_hit_ratio",
            lambda s, v: replace(s, cache=CacheSignals(encoder_hit_ratio=v)),
        ),
    ],
)
def test_nonsense_about_everybody_holds_everything_and_is_forgotten(
    field: str, change: Callable[[ClusterSnapshot, float], ClusterSnapshot], value: float
) -> None:
    cluster = settled()
    before = len(cluster.fleet)
    decided = observe(cluster, lambda seen: change(seen, value))
    assert decided.actions == ()
    assert [(hold.lane, hold.reason, hold.field) for hold in decided.holds] == [
        (None, Reason.METRICS_MISSING, field)
    ]
    assert field in decided.explanation.text
    assert_sound(decided.memory)
    after = cluster.run(3, image_traffic(20.0))[-1]
    assert after.holds == ()
    assert after.total == before


@pytest.mark.parametrize("value", NONSENSE)
@pytest.mark.parametrize("name", ["num_waiting", "waiting_tokens", "num_running"])
def test_nonsense_about_a_queue_holds_its_role(name: str, value: float) -> None:
    cluster = settled()
    bad = RoleSignals(measured_at_s=cluster.now_s + 10.0, **{name: value})  # type: ignore[arg-type]
    decided = observe(cluster, lambda seen: replace(seen, roles={**seen.roles, Role.PREFILL: bad}))
    assert [(hold.lane, hold.field) for hold in decided.holds] == [
        (Lane(DEFAULT_GROUP, Role.PREFILL), f"roles.prefill.{name}")
    ]
    assert_sound(decided.memory)


@pytest.mark.parametrize("value", NONSENSE)
def test_nonsense_in_step_times_and_attainment_changes_nothing_that_was_learnt(
    value: float,
) -> None:
    cluster = settled()
    assert cluster.memory is not None
    known = cluster.memory
    sample = ServiceSample(seconds=value, images=value, tokens=value, sequences=value)
    decided = observe(
        cluster,
        lambda seen: replace(
            seen,
            workers=tuple(replace(w, sample=sample, since_s=-1e6) for w in seen.workers),
            attainment=Attainment(
                measured_at_s=seen.now_s, num_requests=1000, ttft_ratio=value, tpot_ratio=value
            ),
        ),
    )
    assert decided.memory.corrections == known.corrections
    assert decided.memory.margins == known.margins
    assert_sound(decided.memory)


@pytest.mark.parametrize("value", NONSENSE[:3])
def test_tick_without_a_time_keeps_fleet_and_memory(value: float) -> None:
    cluster = settled()
    known = cluster.memory
    decided = observe(cluster, lambda seen: replace(seen, now_s=value))
    assert decided.actions == ()
    assert decided.total == len(cluster.fleet)
    assert decided.memory == known
    assert decided.holds[0].field == "now_s"


def test_memory_that_an_older_planner_wrecked_starts_afresh() -> None:
    wrecked = settled().memory
    assert wrecked is not None
    data = wrecked.to_json()
    data["cache_hit_ratio"] = float("nan")
    assert PlannerMemory.from_json(data) == PlannerMemory()


def test_clock_that_steps_back_goes_on_from_there() -> None:
    steady, stepped = settled(5.0), settled(5.0)
    before = len(stepped.fleet)
    stepped.now_s -= 3600.0
    stepped.fleet = tuple(replace(w, since_s=w.since_s - 3600.0) for w in stepped.fleet)
    for cluster in (steady, stepped):
        cluster.run(60, image_traffic(20.0))
    assert len(stepped.fleet) == len(steady.fleet) > before


@pytest.mark.parametrize("ahead_s", [DAY_S, float("inf"), float("nan")])
def test_traffic_from_the_future_is_held_and_the_next_tick_is_believed(ahead_s: float) -> None:
    cluster = settled(5.0)
    before = len(cluster.fleet)
    decided = observe(cluster, lambda seen: replace(seen, traffic_at_s=seen.now_s + ahead_s))
    assert decided.actions == ()
    assert decided.holds[0].field == "traffic_at_s"
    cluster.run(60, image_traffic(20.0))
    assert len(cluster.fleet) > before


def test_time_far_ahead_of_a_role_is_stale_and_a_little_ahead_is_now() -> None:
    cluster = settled()
    far = {**quiet_signals(cluster.now_s), Role.DECODE: RoleSignals(measured_at_s=1e6)}
    held = observe(cluster, lambda seen: replace(seen, roles=far))
    assert [(hold.reason, hold.field) for hold in held.holds] == [
        (Reason.METRICS_STALE, "roles.decode.measured_at_s")
    ]
    near = observe(cluster, lambda seen: replace(seen, traffic_at_s=seen.now_s + 5.0))
    assert near.holds == ()
    assert near.memory.pool_need is not None
    rates = near.memory.modalities["image"].rates.values()
    assert all(series.at_s == cluster.now_s for series in rates)


def test_one_wrong_hour_of_the_clock_does_not_freeze_the_right_ones() -> None:
    cluster = settled(5.0)
    before = len(cluster.fleet)
    late = snapshot(cluster.now_s + DAY_S, cluster.fleet, (image_traffic(5.0),))
    cluster.memory = plan(late, cluster.policy, cluster.memory).memory
    cluster.run(60, image_traffic(20.0))
    assert len(cluster.fleet) > before
