"""The operator's loop beside the real register of workers: lost workers, a size of others."""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_operator.act.executor import REDUNDANT_S, Executor
from epidote_operator.act.fakes import PretendHands
from epidote_operator.loop import Tick, tick
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_operator.observe.observation import Observation
from epidote_operator.observe.pods import PodFleet
from epidote_operator.observe.window import Traffic
from epidote_operator.resources.labels import ROLE
from epidote_operator.resources.pod_notes import GROUP_LABEL, marked, settled
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.status.conditions import timestamp
from epidote_operator.status.fleet import FleetWorker, SwitchIntent
from epidote_planner import PlannerMemory
from epidote_planner.fakes import image_traffic, policy, quiet_signals
from epidote_planner.lane import Lane
from epidote_workers.fleet import Fleet as Register
from epidote_workers.fleet_view import Wish

ONE_EACH = {Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 1}


@dataclass
class Service(PretendHands):
    """Pods that come up one tick after they were made, the register they join, and the operator."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    now_s: float = 10_000.0
    memory: PlannerMemory = field(default_factory=PlannerMemory)
    joined: PodFleet = field(default_factory=PodFleet)
    orders: list[str] = field(default_factory=list)  # switches that the operator asked for
    made: list[str] = field(default_factory=list)  # switches that workers made, whoever asked
    replicas: int = 3  # that the register has asked for
    told: Counter[Role] | None = None  # the counts that it was told last

    def __post_init__(self) -> None:
        self.register = Register(
            Wish(shape=ONE_EACH, num_workers=3),
            switch=self._switch,
            scale=self._scale,
            is_alive=lambda view: view.worker_id in self.pods and not self._is_dead(view.worker_id),
            now=lambda: self.now_s,
            acquaint_s=0.0,
        )

    def _is_dead(self, name: str) -> bool:
        return self.pods[name]["status"]["phase"] == "Failed"

    async def _scale(self, number: int) -> None:
        """Workers beyond the number say goodbye; their pods stay, without anything to do."""
        self.replicas = number
        for view in self.register.view().workers[number:]:
            self.register.remove(view.worker_id)

    async def _switch(self, worker: WorkerView, role: Role, *, deadline_s: float) -> SwitchOutcome:
        self.made.append(f"{worker.worker_id} {worker.role}>{role}")
        return SwitchOutcome(
            worker_id=worker.worker_id,
            from_role=worker.role,
            to_role=role,
            ok=True,
            epoch=worker.epoch + 1,
        )

    # What the cluster does

    def make(self, lane: Lane) -> None:
        number = next(n for n in range(99) if f"w{n}" not in self.pods)
        self.pods[f"w{number}"] = {
            "metadata": {
                "name": f"w{number}",
                "uid": f"uid-{number}-{self.now_s}",
                "creationTimestamp": timestamp(self.now_s),
                "labels": {ROLE: lane.role.value, GROUP_LABEL: lane.group},
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
        }

    def beat(self, *, joins: bool = False) -> None:
        """Everybody's heart beats. `joins`: pods that the register does not know join it."""
        for name, pod in self.pods.items():
            if self._is_dead(name):
                continue
            known = {view.worker_id: view for view in self.register.view().workers}
            if name not in known:
                if not joins or len(self.register.view().workers) >= self.replicas:
                    continue
                likes = Role(pod["metadata"]["labels"][ROLE])
                view = self._view(name, likes, WorkerState.STARTING, 0)
                role = self.register.register(view, wish=None, keeps_role=False).role
                beat = self._view(name, role, WorkerState.ROUTABLE, 1)
            else:
                beat = known[name]
            self.register.heartbeat(beat, wish=None)

    def _view(self, name: str, role: Role, state: WorkerState, epoch: int) -> WorkerView:
        return WorkerView(worker_id=name, role=role, state=state, epoch=epoch, address=name)

    def kill(self, role: Role) -> str:
        name = next(v.worker_id for v in self.register.view().workers if v.role is role)
        self.pods[name]["status"] = {"phase": "Failed"}
        return name

    async def settle(self) -> None:
        """The register looks, and does what it has to."""
        self.register.tick()
        for _ in range(50):
            await asyncio.sleep(0)

    # What the operator does

    async def look(self, _: Any, now_s: float) -> Observation:
        report = FleetReport(
            at_s=now_s,
            wanted_workers=self.register.view().wish.num_workers,
            workers=tuple(
                WorkerReport(worker_id=v.worker_id, role=v.role, state=v.state, epoch=v.epoch)
                for v in self.register.view().workers
            ),
        )
        fleet = self.joined.fleet(self.pods.values(), report, now_s)
        traffic = Traffic(at_s=now_s, arrivals=(image_traffic(0.01),))
        return Observation(fleet=fleet, traffic=traffic, signals=quiet_signals(now_s))

    async def tick(self) -> Tick:
        self.now_s += 5.0
        executor = Executor(self, drain_deadline_s=30.0)
        self.beat()
        done = await tick(
            self, executor, policy(), self.memory, mode=ScalingMode.AUTO, now_s=self.now_s
        )
        assert done.plan is not None
        self.memory = done.plan.memory
        await self.settle()
        return done

    def roles(self) -> Counter[Role]:
        return Counter(view.role for view in self.register.view().workers)

    # Hands

    async def mark_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        self.orders.append(f"{worker.name} {intent.source.role}>{intent.target.role}")
        self._merge(worker.name, marked(intent))

    async def ask_switch(self, worker: FleetWorker, intent: SwitchIntent) -> None:
        await self.register.switch_role(worker.name, intent.target.role, deadline_s=30.0)

    async def settle_switch(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        self._merge(worker.name, settled(lane, now_s))

    async def assign(self, worker: FleetWorker, lane: Lane, now_s: float) -> None:
        self._merge(worker.name, settled(lane, now_s))

    async def add_workers(self, lane: Lane, count: int, now_s: float) -> int:
        for _ in range(count):
            self.make(lane)
        return count

    async def remove_worker(self, worker: FleetWorker, *, drain: bool) -> None:
        self.pods.pop(worker.name)

    async def match_size(self, assigned: Counter[Lane], known: int | None) -> None:
        """Told once for each change, as by `KubernetesHands`."""
        counts = Counter({lane.role: count for lane, count in assigned.items() if count})
        if self.told == counts and known == counts.total():
            return
        self.told = counts
        try:
            await self.register.set_num_workers(counts.total())
            await self.register.set_roles(counts)
        except EpidoteError as error:
            self.calls.append(str(error))

    def _merge(self, name: str, patch: dict[str, Any]) -> None:
        metadata = self.pods[name]["metadata"]
        for part, changes in patch["metadata"].items():
            merged = {**metadata.get(part, {}), **changes}
            metadata[part] = {key: value for key, value in merged.items() if value is not None}


async def at_rest() -> Service:
    service = Service()
    for role in (Role.ENCODE, Role.PREFILL, Role.DECODE):
        service.make(Lane("default", role))
    service.beat(joins=True)
    for _ in range(3):
        await service.tick()
        service.beat(joins=True)
    assert service.roles() == ONE_EACH
    assert service.made == []
    service.now_s += 3600.0  # who dies now did not crash on start
    service.beat()
    return service


async def test_register_and_operator_do_not_fight_over_a_survivor() -> None:
    for role in (Role.ENCODE, Role.PREFILL, Role.DECODE):
        service = await at_rest()
        service.kill(role)
        await service.settle()
        assert service.roles()[Role.ALL] == 1, "a survivor serves the dead worker's stage as well"
        for _ in range(3):
            await service.tick()  # the replacement is made, and takes its time
        assert service.roles()[Role.ALL] == 1
        for _ in range(8):
            service.beat(joins=True)
            await service.tick()
        assert service.roles() == ONE_EACH
        assert service.orders == [], "there and back by the register alone"
        assert len(service.made) == 2
        labels = Counter(pod["metadata"]["labels"][ROLE] for pod in service.pods.values())
        assert labels == {"encode": 1, "prefill": 1, "decode": 1}


async def test_a_survivor_that_the_register_forgot_is_ordered_back_once() -> None:
    """Its wish says `all`, as counts of an older operator made it."""
    service = await at_rest()
    counts = {Role.ENCODE: 1, Role.ALL: 1, Role.DECODE: 1}
    await service.register.set_roles(counts)
    service.made.clear()
    for _ in range(int(REDUNDANT_S // 5) + 6):
        service.beat(joins=True)
        await service.tick()
    assert len(service.orders) == len(service.made) == 1
    assert service.roles() == ONE_EACH


async def test_a_size_that_somebody_else_gave_the_register_is_the_operators_again() -> None:
    """`epidote scale 1`: one worker is left, which serves every stage, and others have no work."""
    service = await at_rest()
    await service.register.set_num_workers(1)
    await service.settle()
    assert service.roles() == {Role.ALL: 1}
    for _ in range(6):
        await service.tick()
        service.beat(joins=True)
    assert service.register.view().wish.num_workers == 3
    assert service.roles() == ONE_EACH
    assert len(service.pods) == 3, "those that were idle serve again"
    assert service.orders == []
