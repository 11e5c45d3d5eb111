"""The least that a service needs comes up without metrics, and within its bounds."""

from dataclasses import replace

from epidote_core.roles import Role, WorkerState
from epidote_operator.bootstrap import missing_workers
from epidote_operator.status.fleet import Fleet, FleetWorker
from epidote_planner import ClusterSnapshot, plan
from epidote_planner.fakes import policy, quiet_signals
from epidote_planner.lane import Lane
from epidote_planner.policy import Bounds

E, P, D = (Lane("default", role) for role in (Role.ENCODE, Role.PREFILL, Role.DECODE))


def fleet(*lanes: Lane) -> Fleet:
    return Fleet(
        at_s=0.0,
        workers=tuple(
            FleetWorker(name=str(n), lane=lane, state=WorkerState.STARTING, since_s=0.0)
            for n, lane in enumerate(lanes)
        ),
    )


def starts(found: Fleet, **changes: object) -> dict[str, int]:
    rules = policy(**changes)
    decided = plan(ClusterSnapshot(now_s=0.0), rules)
    return {str(s.lane): s.count for s in missing_workers(found, rules, decided)}


def test_every_lane_gets_its_minimum_and_the_rest_of_the_pool_decodes() -> None:
    assert starts(fleet()) == {"encode": 1, "prefill": 1, "decode": 1}
    assert starts(fleet(), pool=Bounds(least=5)) == {"encode": 1, "prefill": 1, "decode": 3}


def test_what_is_on_its_way_counts() -> None:
    assert starts(fleet(E, D)) == {"prefill": 1}
    assert starts(fleet(E, P, D)) == {}


def test_the_budget_binds_here_too() -> None:
    assert starts(fleet(D, D, D), gpu_budget=4) == {"encode": 1}


def test_where_the_planner_sees_it_decides() -> None:
    rules = policy()
    seen = ClusterSnapshot(now_s=0.0, traffic_at_s=0.0, roles=quiet_signals(0.0))
    assert missing_workers(fleet(), rules, plan(seen, rules)) == ()


def test_after_giving_up_it_waits() -> None:
    rules = policy()
    decided = plan(ClusterSnapshot(now_s=0.0), rules)
    waiting = replace(decided, memory=replace(decided.memory, starts_blocked_until_s=99.0))
    assert missing_workers(fleet(), rules, waiting) == ()
