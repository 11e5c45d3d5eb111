"""Which worker takes which role, and when a switch has to wait."""

from dataclasses import replace

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_planner.decision import Reason
from epidote_planner.fakes import (
    image_traffic,
    policy,
    quiet_signals,
    snapshot,
    starts,
    switches,
    text_traffic,
    workers,
)
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds, ModalityGroup
from epidote_planner.snapshot import RoleSignals


def test_surplus_encoder_becomes_the_missing_decoder() -> None:
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=300, num_waiting=40),
    }
    before = snapshot(10.0, workers(6, 3, 1), (image_traffic(4.0),), signals=signals)
    decided = plan(before, policy())
    assert {(s.source.role, s.target.role) for s in switches(decided)} <= {
        (Role.ENCODE, Role.DECODE),
        (Role.PREFILL, Role.DECODE),
    }
    assert len(switches(decided)) >= 2
    assert decided.target(Role.DECODE) >= 3


def test_worker_still_starting_is_reassigned_before_one_that_serves() -> None:
    fresh = replace(workers(1, 0, 0)[0], name="fresh", state=WorkerState.STARTING, since_s=0.0)
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=200),
    }
    before = snapshot(10.0, (*workers(4, 3, 1), fresh), (image_traffic(4.0),), signals=signals)
    assert switches(plan(before, policy()))[0].worker == "fresh"


def test_switch_that_is_only_late_starts_no_worker_in_its_place() -> None:
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=300, num_waiting=40),
    }
    settled = snapshot(10.0, workers(9, 3, 1), (image_traffic(2.0),), signals=signals)
    assert switches(plan(settled, policy()))
    moved = tuple(replace(worker, since_s=5.0) for worker in settled.workers)
    decided = plan(replace(settled, workers=moved), policy())
    assert not switches(decided)
    assert starts(decided) == 0


def test_thousands_of_switches_in_one_plan_leave_every_worker_in_one_place() -> None:
    fleet = tuple(replace(w, num_running=i % 7) for i, w in enumerate(workers(3000, 0, 0)))
    decided = plan(snapshot(10.0, fleet, (text_traffic(60_000.0),)), policy(fixed_pool=True))
    moved = [switch.worker for switch in switches(decided)]
    assert len(moved) == len(set(moved)) == 2999
    assert decided.total == 3000
    busy = {worker.name: worker.num_running for worker in fleet}
    assert [busy[name] for name in moved] == sorted(busy[name] for name in moved)


def test_opposite_switch_waits_for_the_cooldown() -> None:
    rules = policy(fixed_pool=True)
    busy = {
        **quiet_signals(100.0),
        Role.DECODE: RoleSignals(measured_at_s=100.0, num_running=400),
    }
    fleet = workers(5, 2, 1)
    memory = PlannerMemory(at_s=90.0, last_switch_s={"default/decode>default/encode": 95.0})
    decided = plan(snapshot(100.0, fleet, (image_traffic(3.0),), signals=busy), rules, memory)
    assert all(s.source.role is not Role.ENCODE for s in switches(decided))


def test_worker_keeps_its_role_for_the_dwell() -> None:
    signals = {
        **quiet_signals(10.0),
        Role.DECODE: RoleSignals(measured_at_s=10.0, num_running=400),
    }
    young = workers(6, 6, 1, since_s=5.0)
    decided = plan(
        snapshot(10.0, young, (image_traffic(3.0),), signals=signals), policy(fixed_pool=True)
    )
    assert switches(decided) == []
    assert decided.explanation.reason in (Reason.COOLDOWN, Reason.BUDGET_BOUND)


def test_queue_of_one_group_preempts_a_worker_of_the_other_where_the_pool_is_full() -> None:
    grouped = policy(
        fixed_pool=True,
        groups=(
            ModalityGroup(name="text", modalities=(Modality.TEXT,)),
            ModalityGroup(name="media", modalities=(Modality.IMAGE,)),
        ),
    )
    fleet = tuple(
        replace(worker, group=group, name=f"{group}-{worker.name}")
        for group, counts in (("text", (0, 4, 2)), ("media", (2, 1, 1)))
        for worker in workers(*counts)
    )
    jammed = tuple(replace(w, num_waiting=200) if w.name == "media-p0" else w for w in fleet)
    seen = snapshot(10.0, jammed, (text_traffic(1.0), image_traffic(8.0)))
    moved = switches(plan(seen, grouped))
    assert any(s.source.group == "text" and s.target.group == "media" for s in moved)


def test_first_image_gets_an_encoder_by_a_switch_where_a_worker_is_spare() -> None:
    free = policy(roles={**policy().roles, Role.ENCODE: Bounds(least=0)})
    seen = snapshot(10.0, workers(0, 4, 2), (text_traffic(3.0), image_traffic(0.1)))
    decided = plan(seen, free)
    assert [s.target.role for s in switches(decided)] == [Role.ENCODE]
    assert starts(decided) == 0
