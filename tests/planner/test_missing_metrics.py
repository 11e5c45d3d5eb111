"""What is not measured is held as it is: it is no load of zero."""

from dataclasses import replace

from epidote_core.roles import Role, WorkerState
from epidote_planner.decision import Reason
from epidote_planner.fakes import (
    PretendCluster,
    image_traffic,
    policy,
    quiet_signals,
    snapshot,
    workers,
)
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.snapshot import RoleSignals


def test_stale_role_metrics_hold_that_role_only() -> None:
    signals = {**quiet_signals(1000.0), Role.ENCODE: RoleSignals(measured_at_s=10.0)}
    before = snapshot(1000.0, workers(2, 2, 1), (image_traffic(60.0),), signals=signals)
    decided = plan(before, policy())
    assert decided.target(Role.ENCODE) == 2
    assert decided.target(Role.PREFILL) > 2
    assert [hold.reason for hold in decided.holds] == [Reason.METRICS_STALE]


def test_missing_traffic_holds_everything_and_is_not_zero_load() -> None:
    calm = replace(snapshot(1000.0, workers(5, 5, 5), ()), traffic_at_s=None)
    decided = plan(calm, policy(), PlannerMemory(at_s=990.0))
    assert decided.actions == ()
    assert decided.total == 15
    assert decided.explanation.reason is Reason.METRICS_MISSING


def test_dead_series_never_ratchets_a_target() -> None:
    cluster = PretendCluster(policy=policy())
    cluster.run(5, image_traffic(5.0))
    rising = cluster.tick(image_traffic(20.0))
    memory = rising.memory
    fleet = tuple(replace(worker, state=WorkerState.ROUTABLE) for worker in cluster.fleet)
    for tick in range(1, 200):
        now_s = cluster.now_s + 10.0 * tick
        dead = replace(snapshot(now_s, fleet, ()), traffic_at_s=cluster.now_s)
        decided = plan(dead, policy(), memory)
        memory = decided.memory
        if now_s - cluster.now_s > policy().damping.metrics_timeout_s:
            assert decided.actions == ()
    assert memory.modalities == rising.memory.modalities
