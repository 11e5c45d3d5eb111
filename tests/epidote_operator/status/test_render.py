"""What a status says of fleets that are not as they should be."""

from dataclasses import replace
from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import MultimodalServiceStatus, RolloutStatus
from epidote_operator.status.fleet import Done, Fleet, FleetWorker, Outcome, SwitchIntent
from epidote_operator.status.render import Report, render
from epidote_planner import ClusterSnapshot, plan
from epidote_planner.decision import AddWorkers
from epidote_planner.fakes import policy
from epidote_planner.lane import Lane

E, P, D, ALL = (
    Lane("default", role) for role in (Role.ENCODE, Role.PREFILL, Role.DECODE, Role.ALL)
)


def worker(name: str, lane: Lane, said: Lane | None = None, **changes: Any) -> FleetWorker:
    made = FleetWorker(
        name=name, lane=lane, said=said or lane, state=WorkerState.ROUTABLE, since_s=0.0, epoch=1
    )
    return replace(made, **changes)


def shown(*workers: FleetWorker, **more: Any) -> MultimodalServiceStatus:
    """The status of a fleet that nothing is decided about."""
    report = Report(
        now_s=100.0,
        fleet=Fleet(at_s=100.0, workers=workers),
        plan=None,
        outcome=Outcome(),
        mode=ScalingMode.OFF,
        policy=policy(),
        **more,
    )
    return render(report, MultimodalServiceStatus())[0]


def condition(status: MultimodalServiceStatus, kind: str) -> tuple[str, str, str]:
    found = next(item for item in status.conditions if item.type == kind)
    return found.status.value, found.reason, found.message


def test_a_worker_that_stands_in_is_counted_at_home_and_shown_where_it_helps() -> None:
    status = shown(worker("e", E), worker("p", P, ALL))
    assert status.role_summary == "1/1/0+1"
    assert status.ready_workers == 2
    assert [(role.ready, role.stand_ins) for role in status.roles] == [(1, 0), (1, 0), (0, 1)]
    assert condition(status, "Ready") == (
        "True",
        "EveryStageServed",
        "2 workers serve every stage; every one of p, in the place of missing workers",
    )


def test_a_lone_worker_that_stands_in_for_all_others_serves() -> None:
    status = shown(worker("p", P, ALL))
    assert status.role_summary == "0+1/1/0+1"
    assert condition(status, "Ready")[0] == "True"


def test_one_that_belongs_nowhere_else_is_shown_at_every_stage() -> None:
    """Its assignment says `all`, as an older operator wrote it."""
    status = shown(worker("a", ALL))
    assert status.role_summary == "0+1/0+1/0+1"
    assert condition(status, "Ready")[0] == "True"


def test_the_way_back_from_every_stage_is_shown_as_a_switch() -> None:
    intent = SwitchIntent(source=ALL, target=P, epoch=1, started_s=90.0, deadline_s=150.0)
    status = shown(worker("e", E), worker("d", D), worker("p", P, ALL, intent=intent))
    (switch,) = status.switches
    assert (switch.from_role.value, switch.to_role.value) == ("All", "Prefill")
    assert condition(status, "Ready")[1] == "NoRoutableWorker"


def test_an_external_number_that_is_not_granted_is_said_to_be_limited() -> None:
    limit = ("TooManyReplicas", "pool.workers asks for 50 workers")
    status = shown(worker("e", E), worker("p", P), worker("d", D), scale_limit=limit)
    assert condition(status, "ScalingLimited") == ("True", *limit)


def test_the_first_decision_says_what_is_started_and_progress_is_made() -> None:
    """Not that it keeps the 0 workers that are there."""
    decided = plan(ClusterSnapshot(now_s=100.0), policy())
    minimum = tuple(AddWorkers(lane=lane, count=1) for lane in (E, P, D))
    outcome = Outcome(done=(Done(verb="AddWorkers", what="1 encode"),))
    report = Report(
        now_s=100.0,
        fleet=Fleet(at_s=100.0, is_known=False, message="there is no gateway yet"),
        plan=decided,
        outcome=outcome,
        mode=ScalingMode.AUTO,
        policy=policy(),
        minimum=minimum,
    )
    status, decision = render(report, MultimodalServiceStatus())
    assert decision is not None
    assert decision.text.startswith(
        "MetricsMissing: start 1 encode, 1 prefill, 1 decode, the least"
    )
    assert decision.targets == {"encode": 1, "prefill": 1, "decode": 1}
    assert status.desired_workers == 3
    assert condition(status, "Progressing") == (
        "True",
        "WorkersMissing",
        "0 of 3 workers are there, the others are asked for",
    )


def test_a_rollout_shows_what_it_leads_to() -> None:
    rollout = RolloutStatus(
        revision="b",
        ready_workers=1,
        old_workers=3,
        wanted={"encode": 1, "prefill": 1, "decode": 4},
        progressed_at="1970-01-01T00:00:00Z",
    )
    status = shown(worker("e", E), worker("p", P), worker("d", D), rollout=rollout)
    assert (status.desired_workers, [role.desired for role in status.roles]) == (6, [1, 1, 4])
    assert condition(status, "Progressing")[1:] == (
        "RollingUpdate",
        "1 of 6 workers of revision b are ready; 3 older ones are there",
    )
