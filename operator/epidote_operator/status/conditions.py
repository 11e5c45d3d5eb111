"""This file is about a service's conditions: what holds now, with one word and one sentence each.

Reasons follow the HorizontalPodAutoscaler's where it has one (ReadyForNewScale,
SucceededRescale, ValidMetricFound, TooManyReplicas, DesiredWithinRange, ...).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from epidote_core.roles import WorkerState
from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import (
    Condition,
    ConditionStatus,
    ConditionType,
    RolloutStatus,
)
from epidote_operator.status.experts import ExpertsPlaced
from epidote_operator.status.fleet import Fleet, Outcome
from epidote_planner.decision import AddWorkers, Constraint, Plan, Reason, RemoveWorker
from epidote_planner.lane import Lane
from epidote_planner.snapshot import Attainment

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
Finding = tuple[ConditionStatus, str, str]  # status, reason, message

LIMITED = {
    Constraint.GPU_BUDGET: "GPUBudget",
    Constraint.POOL_MAXIMUM: "TooManyReplicas",
    Constraint.ROLE_RATIO: "RoleRatio",
}


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What conditions are judged by. `target_ratio` is the SLO's share of requests."""

    fleet: Fleet
    lanes: tuple[Lane, ...]
    plan: Plan | None
    outcome: Outcome
    mode: ScalingMode
    attainment: Attainment | None
    target_ratio: float
    metrics_message: str = ""
    rollout: RolloutStatus | None = None
    scale_limit: tuple[str, str] | None = None  # reason and message
    has_given_size: bool = False  # the number of workers is not the planner's
    head_trouble: str = ""  # why Ray's head does not come up
    missing: int = 0  # workers that are wanted and not there
    experts_placed: ExpertsPlaced | None = None  # None: nobody holds whole experts


def timestamp(at_s: float) -> str:
    """
    >>> timestamp(0.0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(int(at_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def unix_time(timestamp: str) -> float:
    """
    >>> unix_time("1970-01-01T00:01:00Z")
    60.0
    """
    return datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()


def conditions(
    facts: Facts, before: Iterable[Condition], *, now_s: float, generation: int | None
) -> tuple[Condition, ...]:
    """All conditions now; one whose status did not change keeps its transition time."""
    findings: dict[ConditionType, Finding] = {
        ConditionType.READY: _ready(facts),
        ConditionType.PROGRESSING: _progressing(facts),
        ConditionType.SCALING_ACTIVE: _scaling_active(facts),
        ConditionType.SCALING_LIMITED: _scaling_limited(facts),
        ConditionType.ABLE_TO_SCALE: _able_to_scale(facts),
        ConditionType.ROLE_SWITCHING: _role_switching(facts),
        ConditionType.SLO_MET: _slo_met(facts),
    }
    if facts.experts_placed is not None:
        findings[ConditionType.EXPERTS_PLACED] = facts.experts_placed.finding()
    known = {condition.type: condition for condition in before}
    return tuple(
        renewed(kind.value, finding, known.get(kind.value), now_s=now_s, generation=generation)
        for kind, finding in findings.items()
    )


def renewed(
    kind: str, finding: Finding, before: Condition | None, *, now_s: float, generation: int | None
) -> Condition:
    """One condition as it is now."""
    status, reason, message = finding
    unchanged = before is not None and before.status is status
    return Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=before.last_transition_time
        if unchanged and before is not None
        else timestamp(now_s),
        observed_generation=generation,
    )


def _ready(facts: Facts) -> Finding:
    if not facts.fleet.is_known:
        return _headless(facts, "GatewayUnreachable", facts.fleet.message)
    workers = facts.fleet.workers
    bare = sorted(
        {str(lane) for lane in facts.lanes if not any(w.serves_role(lane.role) for w in workers)}
    )
    if bare:
        return _headless(facts, "NoRoutableWorker", f"no routable worker serves {', '.join(bare)}")
    # Requests go where the gateway routes: a probe that lags behind, or fails, keeps none away.
    able = [worker for worker in workers if worker.serves]
    told = f"{len(able)} workers serve every stage"
    if all_round := [worker.name for worker in able if worker.stands_in]:
        told += f"; every one of {', '.join(all_round)}, in the place of missing workers"
    if unready := [worker.name for worker in able if not worker.is_ready]:
        told += f"; readiness probes of {', '.join(unready)} don't say so yet"
    return TRUE, "EveryStageServed", told


def _headless(facts: Facts, reason: str, message: str) -> Finding:
    if facts.head_trouble:
        return FALSE, "HeadNotReady", f"{message}; {facts.head_trouble}"
    return FALSE, reason, message


def _progressing(facts: Facts) -> Finding:
    starting = [w for w in facts.fleet.staying if w.state is WorkerState.STARTING]
    leaving = [w for w in facts.fleet.workers if w.is_leaving]
    outdated = [w for w in facts.fleet.staying if w.is_outdated]
    if (rollout := facts.rollout) is not None and rollout.failed:
        told = (
            f"revision {rollout.revision} has come no further since {rollout.progressed_at}, "
            f"{rollout.ready_workers} workers ready; {rollout.old_workers} old ones are there"
            f"{_why(rollout)}"
        )
        return FALSE, "ProgressDeadlineExceeded", told
    if rollout is not None:
        told = (
            f"{rollout.ready_workers} of {sum(rollout.wanted.values())} workers of revision "
            f"{rollout.revision} are ready; {rollout.old_workers} older ones are there"
            f"{_why(rollout)}"
        )
        return TRUE, "RollingUpdate", told
    if facts.head_trouble:
        return FALSE, "HeadNotReady", f"{facts.head_trouble}; no worker is started meanwhile"
    if outdated:
        return TRUE, "RollingUpdate", f"{len(outdated)} workers are of an older revision"
    if lost := sum(w.has_lost_head for w in facts.fleet.workers):
        told = f"Ray's head is another one: {lost} workers of the former one are replaced"
        return TRUE, "HeadReplaced", told
    if starting:
        return TRUE, "WorkersStarting", f"{len(starting)} workers start"
    if leaving:
        return TRUE, "WorkersLeaving", f"{len(leaving)} workers drain and leave"
    there = len(facts.fleet.staying)
    if facts.missing:
        told = f"{there} of {there + facts.missing} workers are there, the others are asked for"
        return TRUE, "WorkersMissing", told
    return FALSE, "FleetComplete", f"{there} workers"


def _why(rollout: RolloutStatus) -> str:
    return f"; {rollout.message}" if rollout.message else ""


def _scaling_active(facts: Facts) -> Finding:
    if facts.mode is ScalingMode.OFF:
        return FALSE, "ScalingDisabled", "scaling.mode is Off: the fleet stays as it is"
    assert facts.plan is not None, "every other mode plans"
    whole = [hold for hold in facts.plan.holds if hold.lane is None]
    if whole:
        why = facts.metrics_message or facts.fleet.message or "no recent metrics"
        return FALSE, f"FailedGetMetrics{_suffix(whole[0].reason)}", f"{why}: the fleet is held"
    if facts.mode is ScalingMode.ADVISORY:
        return FALSE, "Advisory", "scaling.mode is Advisory: decisions are shown, not carried out"
    if facts.plan.holds:
        held = ", ".join(str(hold.lane) for hold in facts.plan.holds)
        return TRUE, "RoleHeld", f"no recent metrics of {held}: held as it is"
    return TRUE, "ValidMetricFound", "the fleet follows its metrics"


def _suffix(reason: Reason) -> str:
    return {"MetricsStale": "Stale", "MetricsMissing": "Missing"}.get(reason.value, "")


def _scaling_limited(facts: Facts) -> Finding:
    if facts.scale_limit is not None:
        return TRUE, *facts.scale_limit
    if facts.plan is None:
        return UNKNOWN, "ScalingDisabled", "nothing is decided"
    explanation = facts.plan.explanation
    if explanation.reason is Reason.BUDGET_BOUND or explanation.binding is Constraint.GPU_BUDGET:
        reason = LIMITED.get(explanation.binding, "TooManyReplicas")
        return TRUE, reason, explanation.counterfactual
    if explanation.binding is Constraint.MINIMUM and not facts.has_given_size:
        return TRUE, "TooFewReplicas", explanation.counterfactual
    if explanation.binding in LIMITED:
        return TRUE, LIMITED[explanation.binding], explanation.counterfactual
    return FALSE, "DesiredWithinRange", explanation.text


def _able_to_scale(facts: Facts) -> Finding:
    if facts.outcome.failure:
        return FALSE, "FailedScale", facts.outcome.failure
    if facts.plan is not None and facts.plan.memory.starts_blocked_until_s is not None:
        until = timestamp(facts.plan.memory.starts_blocked_until_s)
        return (
            FALSE,
            "StartBackoff",
            f"workers failed or did not come up in time; new ones are asked for at {until}",
        )
    if facts.outcome.deferred:
        return FALSE, "WaitingForGPUs", "; ".join(facts.outcome.deferred)
    changed = facts.outcome.verbs() & {AddWorkers.__name__, RemoveWorker.__name__}
    if changed:
        return TRUE, "SucceededRescale", "; ".join(str(done) for done in facts.outcome.done)
    if facts.plan is not None and facts.plan.explanation.reason is Reason.SHRINK_WINDOW:
        return TRUE, "ScaleDownStabilized", facts.plan.explanation.counterfactual
    return TRUE, "ReadyForNewScale", "workers can be added, removed and switched"


def _role_switching(facts: Facts) -> Finding:
    moving = [
        f"{worker.name} {worker.intent.source}→{worker.intent.target}"
        for worker in facts.fleet.workers
        if worker.intent is not None
    ]
    if moving:
        return TRUE, "SwitchUnderWay", ", ".join(moving)
    undone = [done.what for done in facts.outcome.done if done.verb == "RolledBack"]
    if undone:
        return FALSE, "RolledBack", ", ".join(undone)
    return FALSE, "NoSwitch", "every worker is in its role"


def _slo_met(facts: Facts) -> Finding:
    seen = facts.attainment
    if seen is None:
        return UNKNOWN, "NoRequests", "no request has finished in the window"
    told = (
        f"{seen.ttft_ratio:.1%} of {seen.num_requests} requests met TTFT, "
        f"{seen.tpot_ratio:.1%} TPOT; the SLO asks for {facts.target_ratio:.0%}"
    )
    if seen.ttft_ratio < facts.target_ratio:
        return FALSE, "TTFTMissed", told
    if seen.tpot_ratio < facts.target_ratio:
        return FALSE, "TPOTMissed", told
    is_ready, _, why = _ready(facts)
    if is_ready is FALSE:  # the window's requests are of a fleet that is not there any more
        return UNKNOWN, "NotServing", f"{why}; until then {told}"
    return TRUE, "EveryTargetMet", told
