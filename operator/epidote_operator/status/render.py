"""This file is about a service's status: everything one tick found and did, as one value."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.roles import Role
from epidote_operator.spec.role_bounds import RoleName
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import (
    AttainmentStatus,
    DecisionStatus,
    GpuStatus,
    MultimodalServiceStatus,
    RoleStatus,
    RolloutStatus,
    SwitchState,
    SwitchStatus,
    WorkerRole,
)
from epidote_operator.status.conditions import Facts, conditions, timestamp
from epidote_operator.status.decisions import decision_of, remembered
from epidote_operator.status.experts import ExpertsPlaced
from epidote_operator.status.fleet import Fleet, FleetWorker, Outcome
from epidote_operator.status.kept import decides, renewed_kept
from epidote_planner.decision import AddWorkers, Plan
from epidote_planner.lane import SPLIT_ROLES, Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import Attainment


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a tick has to tell. `switch_states` and `actions` are the executor's words."""

    now_s: float
    fleet: Fleet
    plan: Plan | None
    outcome: Outcome
    mode: ScalingMode
    policy: PlannerPolicy
    attainment: Attainment | None = None
    metrics_message: str = ""
    switch_states: dict[str, SwitchState] = field(default_factory=dict)
    actions: tuple[str, ...] = ()
    gpus_per_worker: int = 0
    generation: int | None = None
    rollout: RolloutStatus | None = None
    minimum: tuple[AddWorkers, ...] = ()  # started without the plan
    scale_limit: tuple[str, str] | None = None  # why an external owner has not what it asked for
    experts_placed: ExpertsPlaced | None = None
    num_pods: int | None = None  # of both revisions, where there are two
    head_trouble: str = ""  # why Ray's head does not come up
    num_unplaced: int = 0  # pods that hold no GPU, since no node takes them


def render(
    report: Report, before: MultimodalServiceStatus
) -> tuple[MultimodalServiceStatus, DecisionStatus | None]:
    """The status now, and the decision if it is one that people should hear of."""
    plan, fleet, now_s = report.plan, report.fleet, report.now_s
    num_pods = len(fleet.workers) if report.num_pods is None else report.num_pods
    kept = _kept(report, before)
    decision = None
    if plan is not None:
        acts = report.mode is ScalingMode.AUTO
        decision = decision_of(
            plan,
            report.outcome,
            report.actions,
            acts=acts,
            now_s=now_s,
            minimum=_beside(report),
        )
    decisions = remembered(decision, before.decisions)
    is_new = decision is not None and decisions[:1] == (decision,)
    facts = Facts(
        fleet=fleet,
        lanes=report.policy.lanes,
        plan=plan,
        outcome=report.outcome,
        mode=report.mode,
        attainment=report.attainment,
        target_ratio=report.policy.slo.quantile,
        metrics_message=report.metrics_message,
        rollout=report.rollout,
        scale_limit=report.scale_limit,
        has_given_size=report.policy.has_given_size,
        head_trouble=report.head_trouble,
        missing=_missing(report, kept),
        experts_placed=report.experts_placed,
    )
    targets = _targets(report, kept)
    roles = tuple(_role(role, report, targets) for role in SPLIT_ROLES)
    scaled = report.outcome.verbs() & {"AddWorkers", "RemoveWorker"}
    status = before.model_copy(
        update={
            "observed_generation": report.generation,
            "conditions": conditions(
                facts, before.conditions, now_s=now_s, generation=report.generation
            ),
            "workers": num_pods,
            "ready_workers": fleet.ready().total(),
            "desired_workers": sum(targets.values()),
            "kept_workers": kept,
            "roles": roles,
            "role_summary": "/".join(_summary(role) for role in roles),
            "gpus": GpuStatus(
                used=report.gpus_per_worker * (num_pods - report.num_unplaced),
                budget=report.policy.gpu_budget,
            ),
            "switches": tuple(
                _switch(worker, report.switch_states.get(worker.name))
                for worker in fleet.workers
                if worker.intent is not None
            ),
            "attainment": _attainment(report.attainment) or before.attainment,
            "decisions": decisions,
            "rollout": report.rollout,
            "last_scale_time": timestamp(now_s) if scaled else before.last_scale_time,
            "memory": plan.memory.to_json() if plan is not None else before.memory,
        }
    )
    return status, decision if is_new else None


def _beside(report: Report) -> tuple[AddWorkers, ...]:
    """Starts that the plan does not know of: advice that has them in it is not added to."""
    plan, is_fixed = report.plan, report.policy.fixed_pool
    is_held = plan is None or is_fixed or any(hold.lane is None for hold in plan.holds)
    return report.minimum if is_held else ()


def _kept(report: Report, before: MultimodalServiceStatus) -> dict[str, int]:
    """Workers by lane that are there again if they get lost: the last decision carried out."""
    if report.rollout is not None and report.rollout.wanted:
        return dict(report.rollout.wanted)
    if report.plan is not None and decides(report.plan, report.mode, report.policy):
        wanted = sorted(report.plan.targets.items())
        return {str(lane): count for lane, count in wanted if count > 0}
    there = report.fleet.assigned()
    for start in report.minimum:
        there[start.lane] += start.count
    return renewed_kept(before.kept_workers, there)


def _targets(report: Report, kept: Mapping[str, int]) -> dict[Lane, int]:
    """Workers wanted: a rollout's while there is one, else the plan's, else those that are kept."""
    if (report.rollout is not None and report.rollout.wanted) or report.plan is None:
        return {lane: kept.get(str(lane), 0) for lane in report.policy.lanes}
    wanted = Counter(report.plan.targets)
    for start in _beside(report):
        wanted[start.lane] += start.count
    return wanted


def _missing(report: Report, kept: Mapping[str, int]) -> int:
    """Workers that are wanted and not there; advice that is not followed misses nobody."""
    acts = report.mode is ScalingMode.AUTO
    wanted = sum(_targets(report, kept).values()) if acts else sum(kept.values())
    return max(0, wanted - len(report.fleet.staying))


def _role(role: Role, report: Report, targets: Mapping[Lane, int]) -> RoleStatus:
    def of_role(counts: Mapping[Lane, int]) -> int:
        return sum(count for lane, count in counts.items() if lane.role is role)

    fleet = report.fleet
    ready = of_role(fleet.ready())
    return RoleStatus(
        name=RoleName.of(role),
        desired=of_role(targets),
        ready=ready,
        stand_ins=0 if ready else len(fleet.stand_ins(role)),
        switching=of_role(fleet.switching()),
    )


def _summary(role: RoleStatus) -> str:
    return f"{role.ready}+{role.stand_ins}" if role.stand_ins else str(role.ready)


def _switch(worker: FleetWorker, state: SwitchState | None) -> SwitchStatus:
    intent = worker.intent
    assert intent is not None, "only of workers that switch"
    return SwitchStatus(
        worker=worker.name,
        from_role=WorkerRole.of(intent.source.role),
        to_role=WorkerRole.of(intent.target.role),
        epoch=intent.epoch,
        state=state or SwitchState.ROUTABLE,
        started_at=timestamp(intent.started_s),
        deadline=timestamp(intent.deadline_s),
    )


def _attainment(seen: Attainment | None) -> AttainmentStatus | None:
    if seen is None:
        return None
    return AttainmentStatus(
        measured_at=timestamp(seen.measured_at_s),
        requests=seen.num_requests,
        ttft_percent=round(100 * seen.ttft_ratio, 2),
        tpot_percent=round(100 * seen.tpot_ratio, 2),
    )
