"""What a status says of fleets that are not as they should be."""

from dataclasses import replace
from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.status.fleet import Fleet, FleetWorker, Outcome, SwitchIntent
from epidote_operator.status.render import Report, render
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
