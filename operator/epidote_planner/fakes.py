"""This file is about a pretend cluster, on which plans are carried out at once.

Tests cannot import each other, so what they share lives here, beside what it imitates.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_core.slo import Slo
from epidote_planner.decision import AddWorkers, Plan, RemoveWorker, SwitchRole
from epidote_planner.distribution import Distribution
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES
from epidote_planner.memory import PlannerMemory
from epidote_planner.performance import (
    DecodeCost,
    EncodeCost,
    PerformanceProfile,
    PrefillCost,
)
from epidote_planner.planner import plan
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import (
    Attainment,
    CacheSignals,
    ClusterSnapshot,
    ModalityTraffic,
    RoleSignals,
    WorkerStatus,
)

PROFILE = PerformanceProfile(
    name="pretend",
    provenance="round numbers for tests",
    encode=EncodeCost(base_s=0.01, per_token_s=0.0003),
    prefill=PrefillCost(base_s=0.01, per_token_s=0.0003),
    decode=DecodeCost(
        base_s=0.02, per_sequence_s=0.0002, per_context_token_s=1e-7, kv_tokens=150_000
    ),
    startup_s=60.0,
)
SLO = Slo(ttft_s=3.0, tpot_s=0.05)


def policy(**changes: object) -> PlannerPolicy:
    """A policy on the pretend profile; `changes` replace its fields."""
    return replace(PlannerPolicy(profile=PROFILE, slo=SLO), **changes)  # type: ignore[arg-type]


def image_traffic(rps: float, *, images: float = 1.0, output: float = 100.0) -> ModalityTraffic:
    return ModalityTraffic(
        modality=Modality.IMAGE,
        arrival_rps=rps,
        input_tokens=Distribution(mean=200.0, p50=150.0, p90=400.0, p99=900.0),
        output_tokens=Distribution.constant(output),
        images=Distribution.constant(images),
        image_tokens=Distribution.constant(500.0 * images),
    )


def text_traffic(rps: float, *, output: float = 100.0) -> ModalityTraffic:
    return ModalityTraffic(
        modality=Modality.TEXT,
        arrival_rps=rps,
        input_tokens=Distribution(mean=600.0, p50=400.0, p90=1500.0, p99=3000.0),
        output_tokens=Distribution.constant(output),
    )


def workers(encode: int, prefill: int, decode: int, **fields: object) -> tuple[WorkerStatus, ...]:
    """Routable workers e0, e1, …, p0, …, d0, … that have had their role for long."""
    return tuple(
        replace(
            WorkerStatus(name=f"{role.value[0]}{index}", role=role, since_s=-1e6),
            **fields,  # type: ignore[arg-type]
        )
        for role, count in zip(SPLIT_ROLES, (encode, prefill, decode), strict=True)
        for index in range(count)
    )


def quiet_signals(now_s: float) -> dict[Role, RoleSignals]:
    """Fresh metrics, no queues."""
    return {role: RoleSignals(measured_at_s=now_s) for role in SPLIT_ROLES}


def snapshot(
    now_s: float,
    fleet: tuple[WorkerStatus, ...],
    traffic: tuple[ModalityTraffic, ...],
    *,
    signals: Mapping[Role, RoleSignals] | None = None,
    cache_hits: float = 0.0,
    met: float = 1.0,
) -> ClusterSnapshot:
    return ClusterSnapshot(
        now_s=now_s,
        workers=fleet,
        traffic=traffic,
        traffic_at_s=now_s,
        roles=quiet_signals(now_s) if signals is None else signals,
        attainment=Attainment(
            measured_at_s=now_s, num_requests=1000, ttft_ratio=met, tpot_ratio=met
        ),
        cache=CacheSignals(response_hit_ratio=cache_hits),
    )


def switches(decided: Plan) -> list[SwitchRole]:
    """The plan's switches, in order."""
    return [action for action in decided.actions if isinstance(action, SwitchRole)]


def starts(decided: Plan) -> int:
    """How many workers the plan starts."""
    return sum(action.count for action in decided.actions if isinstance(action, AddWorkers))


def removals(decided: Plan) -> list[RemoveWorker]:
    """The plan's removals, in order, with those that it gave up."""
    return [action for action in decided.actions if isinstance(action, RemoveWorker)]


@dataclass
class PretendCluster:
    """Carries plans out: a switch takes a tick, starts and removals take theirs."""

    policy: PlannerPolicy
    fleet: tuple[WorkerStatus, ...] = ()
    memory: PlannerMemory | None = None
    now_s: float = 0.0
    start_ticks: int = 0
    removal_ticks: int = 0  # a removed worker drains so long, and holds its GPU
    count: int = 0

    def tick(self, *traffic: ModalityTraffic, met: float = 1.0) -> Plan:
        """One observation, one plan, carried out."""
        self.now_s += self.policy.tick_s
        self._settle()
        decided = plan(snapshot(self.now_s, self.fleet, traffic, met=met), self.policy, self.memory)
        self.memory = decided.memory
        self._act(decided)
        return decided

    def run(self, ticks: int, *traffic: ModalityTraffic, met: float = 1.0) -> list[Plan]:
        return [self.tick(*traffic, met=met) for _ in range(ticks)]

    def _settle(self) -> None:
        due_s = self.now_s - self.start_ticks * self.policy.tick_s
        gone_s = self.now_s - self.removal_ticks * self.policy.tick_s
        self.fleet = tuple(
            replace(worker, state=WorkerState.ROUTABLE, since_s=self.now_s)
            if worker.state is WorkerState.SWITCHING
            or (worker.state is WorkerState.STARTING and worker.since_s <= due_s)
            else worker
            for worker in self.fleet
            if not worker.leaving or worker.since_s > gone_s
        )

    def _act(self, decided: Plan) -> None:
        by_name = {worker.name: worker for worker in self.fleet}
        for action in decided.actions:
            match action:
                case SwitchRole():
                    moved = replace(
                        by_name[action.worker],
                        role=action.target.role,
                        group=action.target.group,
                    )
                    if moved.state is not WorkerState.STARTING:
                        moved = replace(moved, state=WorkerState.SWITCHING, since_s=self.now_s)
                    by_name[action.worker] = moved
                case RemoveWorker() if self.removal_ticks:
                    by_name[action.worker] = replace(
                        by_name[action.worker],
                        state=WorkerState.DRAINING,
                        leaving=True,
                        since_s=self.now_s,
                    )
                case RemoveWorker():
                    del by_name[action.worker]
                case AddWorkers():
                    for _ in range(action.count):
                        self.count += 1
                        name = f"new{self.count}"
                        by_name[name] = WorkerStatus(
                            name=name,
                            role=action.lane.role,
                            group=action.lane.group or DEFAULT_GROUP,
                            state=WorkerState.STARTING,
                            since_s=self.now_s,
                        )
                case _:
                    pass
        self.fleet = tuple(by_name.values())
