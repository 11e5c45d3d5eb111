"""Who is lost is replaced, whether or not anybody decides: tick by tick, by the status alone."""

from dataclasses import dataclass, field, replace

import pytest

from epidote_core.roles import Role, WorkerState
from epidote_operator.act.executor import Executor
from epidote_operator.act.fakes import PretendHands
from epidote_operator.loop import tick
from epidote_operator.observe.observation import Observation
from epidote_operator.observe.window import Traffic
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.status.fleet import FleetWorker
from epidote_operator.status.kept import kept_workers
from epidote_operator.status.persistence import read_memory
from epidote_operator.status.render import Report, render
from epidote_planner.fakes import image_traffic, policy, quiet_signals
from epidote_planner.lane import Lane
from epidote_planner.policy import Bounds, PlannerPolicy

E, P, D = (Lane("default", role) for role in (Role.ENCODE, Role.PREFILL, Role.DECODE))
IDLE = {ScalingMode.OFF, ScalingMode.ADVISORY}
LONG_S = 100_000.0  # who ends after so long has not crashed on its start


@dataclass
class Service(PretendHands):
    """Workers that were decided on, and an operator that keeps its memory in the status alone."""

    mode: ScalingMode = ScalingMode.OFF
    has_metrics: bool = True
    rules: PlannerPolicy = field(default_factory=policy)
    status: MultimodalServiceStatus = field(default_factory=MultimodalServiceStatus)
    now_s: float = LONG_S

    async def look(self, _: object, now_s: float) -> Observation:
        traffic = Traffic(at_s=now_s, arrivals=(image_traffic(0.01),))
        return Observation(
            fleet=self.fleet(now_s),
            traffic=traffic if self.has_metrics else Traffic(at_s=None),
            signals=quiet_signals(now_s) if self.has_metrics else {},
        )

    async def tick(self, after_s: float = 10.0) -> list[str]:
        """What was done, after so many seconds; who left is gone then, who was made serves."""
        self.now_s += after_s
        self.calls.clear()
        done = await tick(
            self,
            Executor(self, drain_deadline_s=30.0),
            self.rules,
            read_memory(self.status.memory),
            mode=self.mode,
            now_s=self.now_s,
            kept=kept_workers(self.status, self.rules),
        )
        report = Report(
            now_s=self.now_s,
            fleet=done.observation.fleet,
            plan=done.plan,
            outcome=done.outcome,
            mode=self.mode,
            policy=self.rules,
            minimum=done.minimum,
        )
        after = render(report, self.status)[0].model_dump_json(by_alias=True)
        self.status = MultimodalServiceStatus.model_validate_json(after)
        self.workers = {w.name: w for w in self.workers.values() if not w.is_leaving}
        acts = ("add_workers", "remove_worker", "mark_switch")
        return [call for call in self.calls if call.startswith(acts)]

    def come_up(self) -> None:
        self.workers = {
            name: replace(worker, state=WorkerState.ROUTABLE, said=worker.lane)
            if worker.state is WorkerState.STARTING
            else worker
            for name, worker in self.workers.items()
        }

    def fail(self, name: str, *, made_s: float = 0.0) -> None:
        self.workers[name] = replace(
            self.workers[name], state=WorkerState.FAILED, said=None, since_s=made_s
        )


async def at_rest(mode: ScalingMode, *lanes: Lane, has_metrics: bool = True) -> Service:
    service = Service(mode=mode, has_metrics=has_metrics)
    service.workers = {
        f"w{number}": FleetWorker(
            name=f"w{number}", lane=lane, said=lane, state=WorkerState.ROUTABLE, since_s=0.0
        )
        for number, lane in enumerate(lanes)
    }
    await service.tick()
    return service


HELD = [(ScalingMode.OFF, True), (ScalingMode.ADVISORY, True), (ScalingMode.AUTO, False)]


@pytest.mark.parametrize(("mode", "has_metrics"), HELD)
async def test_a_worker_that_vanished_comes_back_in_its_role(
    mode: ScalingMode, has_metrics: bool
) -> None:
    service = await at_rest(mode, E, P, P, D, D, D, has_metrics=has_metrics)
    del service.workers["w2"], service.workers["w5"]
    assert await service.tick() == ["add_workers 1 prefill", "add_workers 1 decode"]
    assert service.status.kept_workers == {"encode": 1, "prefill": 2, "decode": 3}
    service.come_up()
    assert await service.tick() == []
    assert service.fleet(0.0).ready() == {E: 1, P: 2, D: 3}


@pytest.mark.parametrize(("mode", "has_metrics"), HELD)
async def test_a_worker_that_ended_is_taken_away_and_replaced_in_its_role(
    mode: ScalingMode, has_metrics: bool
) -> None:
    service = await at_rest(mode, E, E, P, D, D, has_metrics=has_metrics)
    service.fail("w1")
    assert "remove_worker w1 now" in await service.tick()
    assert await service.tick() == ["add_workers 1 encode"]
    service.come_up()
    assert await service.tick() == []
    assert service.fleet(0.0).assigned() == {E: 2, P: 1, D: 2}


@pytest.mark.parametrize("mode", sorted(IDLE))
async def test_one_that_crashes_on_its_start_is_tried_again_once_a_back_off(
    mode: ScalingMode,
) -> None:
    service = await at_rest(mode, E, P, D, D)
    back_off_s = service.rules.damping.start_backoff_s
    service.fail("w3", made_s=service.now_s)
    made_s, done = service.now_s, list[str]()
    while service.now_s < made_s + 2.5 * back_off_s:
        done += await service.tick()
        for name, worker in service.workers.items():
            if worker.state is WorkerState.STARTING:
                service.fail(name, made_s=service.now_s)
    assert done.count("add_workers 1 decode") == 2
    assert len([call for call in done if call.startswith("remove_worker")]) == 2
    assert len(service.workers) == 4, "none that ended is left behind"


async def test_one_that_never_comes_up_is_asked_for_anew() -> None:
    service = await at_rest(ScalingMode.OFF, E, P, D, D)
    del service.workers["w3"]
    assert await service.tick() == ["add_workers 1 decode"]
    (late,) = (w.name for w in service.workers.values() if w.state is WorkerState.STARTING)
    assert await service.tick(service.rules.damping.start_deadline_s - 1.0) == []
    assert await service.tick() == [f"remove_worker {late} now"]
    assert await service.tick() == ["add_workers 1 decode"]


async def test_workers_that_were_moved_by_hand_stay_where_they_are() -> None:
    service = await at_rest(ScalingMode.OFF, E, P, D, D)
    service.workers["w3"] = replace(service.workers["w3"], lane=E, said=E)
    assert await service.tick() == []
    assert service.status.kept_workers == {"decode": 1, "encode": 2, "prefill": 1}
    del service.workers["w3"]
    assert await service.tick() == ["add_workers 1 encode"]


async def test_what_was_decided_last_is_kept_when_scaling_is_switched_off() -> None:
    """A worker that got lost in the same moment included."""
    service = await at_rest(ScalingMode.AUTO, E, P, D)
    service.rules = replace(service.rules, pool=Bounds(least=5))
    await service.tick()
    service.come_up()
    await service.tick()
    decided = service.status.kept_workers
    assert sum(decided.values()) == 5
    service.mode = ScalingMode.OFF
    service.rules = policy()
    service.workers.pop(next(reversed(service.workers)))
    assert len(await service.tick()) == 1
    lanes = service.fleet(0.0).assigned()
    assert {str(lane): count for lane, count in lanes.items()} == decided


async def test_a_pool_whose_owner_has_not_spoken_yet_stays_as_large_as_it_is() -> None:
    service = await at_rest(ScalingMode.AUTO, E, P, D, D)
    service.rules = replace(service.rules, fixed_pool=True)
    await service.tick()
    lost = next(reversed(service.workers))
    del service.workers[lost]
    assert [call.partition(" ")[0] for call in await service.tick()] == ["add_workers"]
    assert len(service.workers) == 4


async def test_a_smaller_pool_is_not_filled_up_to_what_it_was() -> None:
    service = await at_rest(ScalingMode.OFF, E, P, D, D, D)
    service.rules = replace(service.rules, pool=Bounds(least=1, most=4))
    del service.workers["w4"], service.workers["w3"]
    assert await service.tick() == ["add_workers 1 decode"]


async def test_advice_is_not_followed_by_replacing_somebody() -> None:
    service = await at_rest(ScalingMode.ADVISORY, E, P, D)
    service.rules = replace(service.rules, roles={**service.rules.roles, Role.DECODE: Bounds()})
    del service.workers["w2"]
    assert await service.tick() == ["add_workers 1 decode"]
    assert service.status.desired_workers == 3


@pytest.mark.parametrize("mode", sorted(ScalingMode))
async def test_pods_that_ended_do_not_pile_up(mode: ScalingMode) -> None:
    service = await at_rest(mode, E, P, D, D, D, D)
    for name in list(service.workers):
        service.fail(name)
    for _ in range(4):
        await service.tick(service.rules.damping.start_backoff_s)
        service.come_up()
    assert service.workers
    assert all(worker.state is not WorkerState.FAILED for worker in service.workers.values())
