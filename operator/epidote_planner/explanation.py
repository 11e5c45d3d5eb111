"""This file is about saying, in words for the person on call, what was decided and why."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_core.roles import Role
from epidote_planner.capacity import GroupModel
from epidote_planner.decision import Constraint, Explanation, Hold, Reason
from epidote_planner.lane import Lane
from epidote_planner.reach import Unreachable
from epidote_planner.sizing import Split

CUTS = (Constraint.GPU_BUDGET, Constraint.POOL_MAXIMUM, Constraint.ROLE_MAXIMUM)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the steps found that the explanation may need."""

    rps: float
    cache_hit_ratio: float
    cache_lost: bool
    models: Mapping[str, GroupModel]
    needs: Mapping[Lane, int]  # what the SLO asks for, after bounds and budget
    wanted: int  # before the budget
    without_maxima: int | None  # where the roles' maxima cut the needs
    before: Mapping[Lane, int]
    targets: Mapping[Lane, int]
    routable: Mapping[Lane, int]
    pool_target: int
    forecast: float
    limit: int
    least: int  # workers that stay whatever the demand
    has_given_size: bool
    cut: Constraint | None
    holds: tuple[Hold, ...]
    gave_up: int
    failed: int  # of those given up: they crashed or were killed
    starts_blocked: bool
    cooling: bool
    experts_moved: str  # what is moved and won; "": nothing is
    backlog_s: float
    margin: float
    unreachable: Unreachable | None = None


def explain(finding: Finding) -> Explanation:
    """Reason, binding constraint, one counterfactual, and a paragraph that joins them."""
    reason = _reason(finding)
    binding = _binding(finding)
    counterfactual = _counterfactual(finding, binding)
    moved = ", ".join(
        f"{lane} {finding.before.get(lane, 0)}→{count}"
        for lane, count in sorted(finding.targets.items())
        if count != finding.before.get(lane, 0)
    )
    decided = f"change {moved}" if moved else f"keep {_workers(sum(finding.targets.values()))}"
    text = (
        f"{reason.value}: {decided}. Demand {finding.rps:.2f} requests/s after a response-cache "
        f"hit ratio of {finding.cache_hit_ratio:.0%}; {binding.value} binds. {counterfactual}"
    )
    if finding.experts_moved:
        text += f" Besides, {finding.experts_moved}."
    fields = sorted({hold.field for hold in finding.holds if hold.field})
    if fields:
        text += f" Not believed: {', '.join(fields)}."
    return Explanation(
        reason=reason,
        binding=binding,
        counterfactual=counterfactual,
        text=text,
        inputs={
            "rps": round(finding.rps, 4),
            "cache_hit_ratio": round(finding.cache_hit_ratio, 4),
            "pool_need": float(sum(finding.needs.values())),
            "pool_wanted": float(finding.wanted),
            "pool_target": float(finding.pool_target),
            "pool_forecast": round(finding.forecast, 4),
            "backlog_s": round(finding.backlog_s, 4),
            "margin": round(finding.margin, 4),
        },
    )


def _reason(finding: Finding) -> Reason:
    """The first that applies: what stops the planner, then what moves it, then what damps it."""
    whole = [hold.reason for hold in finding.holds if hold.lane is None]
    before, after = sum(finding.before.values()), sum(finding.targets.values())
    split_changed = any(
        finding.before.get(lane, 0) != count for lane, count in finding.targets.items()
    )
    if whole:
        return whole[0]
    if finding.gave_up:
        late = finding.gave_up > finding.failed
        return Reason.START_TIMED_OUT if late else Reason.WORKER_FAILED
    if finding.unreachable is not None:
        return Reason.SLO_UNREACHABLE
    if finding.cut in CUTS:
        return Reason.BUDGET_BOUND
    if finding.holds:
        return finding.holds[0].reason
    if finding.experts_moved:
        return Reason.EXPERT_SKEW
    if after > before:
        return _growth_reason(finding, before)
    if after < before:
        return Reason.DEMAND_FELL
    if split_changed:
        return Reason.DEMAND_SHIFTED
    if finding.cooling:
        return Reason.COOLDOWN
    if after > sum(finding.needs.values()):
        return Reason.SHRINK_WINDOW if after > finding.least else Reason.STEADY
    return Reason.STEADY


def _growth_reason(finding: Finding, before: int) -> Reason:
    if finding.cache_lost:
        return Reason.CACHE_LOST
    if sum(finding.needs.values()) <= before:
        return Reason.FORECAST
    if finding.backlog_s > 1.0:
        return Reason.BACKLOG
    return Reason.SLO_MISSED if finding.margin > 0.0 else Reason.DEMAND_ROSE


def _binding(finding: Finding) -> Constraint:
    """What keeps the targets from being smaller, or, where they are cut, from being larger."""
    if any(hold.lane is None for hold in finding.holds):
        return Constraint.METRICS
    if finding.cut is not None:
        return finding.cut
    if finding.unreachable is not None:
        return Constraint(finding.unreachable.promise.value)
    if finding.starts_blocked:
        return Constraint.POOL_MAXIMUM
    if sum(finding.targets.values()) > sum(finding.needs.values()):
        waits = sum(finding.targets.values()) > finding.least
        return Constraint.DAMPING if waits else Constraint.MINIMUM
    tightest = _tightest(finding)
    if tightest is None:
        return Constraint.MINIMUM
    return _limit_of(*tightest)


def _tightest(finding: Finding) -> tuple[GroupModel, Role] | None:
    """The role of the largest group that would break the SLO with one worker fewer."""
    found: tuple[float, GroupModel, Role] | None = None
    for group, model in sorted(finding.models.items()):
        split = _split(finding.targets, group)
        for role, load in (
            (Role.ENCODE, model.encode_load),
            (Role.PREFILL, model.prefill_load),
            (Role.DECODE, model.decode_load),
        ):
            breaks = load > 0.0 and not _fits(model, _with(split, role, -1), role)
            if breaks and (found is None or load > found[0]):
                found = (load, model, role)
    return (found[1], found[2]) if found else None


def _limit_of(model: GroupModel, role: Role) -> Constraint:
    if role is not Role.DECODE:
        return Constraint.TTFT
    at_limit = model.step_s(model.sequences_per_decoder)
    return Constraint.TPOT if at_limit > 0.97 * model.tpot_limit_s else Constraint.KV_MEMORY


def _counterfactual(finding: Finding, binding: Constraint) -> str:
    if binding is Constraint.METRICS:
        return "With fresh metrics the demand would have been sized again."
    if finding.unreachable is not None:
        return finding.unreachable.text
    if binding is Constraint.ROLE_MAXIMUM:
        kept, free = sum(finding.needs.values()), finding.without_maxima or 0
        return f"Without the roles' maxima: {_workers(free)} instead of {kept}."
    if binding is Constraint.GPU_BUDGET:
        return f"Without the GPU budget: {_workers(finding.wanted)} instead of {finding.limit}."
    if binding is Constraint.POOL_MAXIMUM and finding.starts_blocked:
        return "Workers failed or did not come up in time; new ones are asked for later."
    if binding is Constraint.POOL_MAXIMUM:
        return f"Without the pool's maximum: {_workers(finding.wanted)} instead of {finding.limit}."
    now = _missing_now(finding)
    if now:
        return now
    if binding is Constraint.DAMPING:
        need = sum(finding.needs.values())
        return f"Present demand needs {_workers(need)}; the rest waits for the shrink window."
    if sum(finding.targets.values()) > sum(finding.needs.values()):
        told = f"Present demand needs {_workers(sum(finding.needs.values()))}"
        if finding.has_given_size:
            return f"{told}; their number is not the planner's to choose."
        return f"{told}; the pool's minimum keeps {finding.least}."
    tightest = _tightest(finding)
    if tightest is None:
        return "Every role is at its minimum; fewer workers are not allowed."
    return _one_fewer(finding, *tightest)


def _missing_now(finding: Finding) -> str:
    """What the workers that are routable at this moment miss, if one more would do."""
    for group, model in sorted(finding.models.items()):
        split = _split(finding.routable, group)
        for role in (Role.ENCODE, Role.PREFILL, Role.DECODE):
            more = _with(split, role, +1)
            if not _fits(model, split, role) and _fits(model, more, role):
                promise = "TPOT" if role is Role.DECODE else "TTFT"
                return f"One more routable {role.value} worker would have met {promise} now."
    return ""


def _one_fewer(finding: Finding, model: GroupModel, role: Role) -> str:
    group = next(name for name, known in finding.models.items() if known is model)
    fewer = _with(_split(finding.targets, group), role, -1)
    if role is Role.DECODE:
        tpot = model.tpot_s(fewer.decode)
        shown = "no end to the queue" if tpot == float("inf") else f"TPOT {tpot * 1000:.0f} ms"
        limit = f"{model.tpot_limit_s * 1000:.0f} ms"
        return f"With one decode worker fewer: {shown}, the SLO allows {limit}."
    missed = model.ttft_miss_ratio(fewer.encode, fewer.prefill)
    allowed = model.allowed_miss_ratio
    return (
        f"With one {role.value} worker fewer {missed:.1%} of the requests would miss TTFT, "
        f"the SLO allows {allowed:.1%}."
    )


def _fits(model: GroupModel, split: Split, role: Role) -> bool:
    if role is Role.DECODE:
        return model.decode_fits(split.decode)
    return model.ttft_fits(split.encode, split.prefill)


def _with(split: Split, role: Role, change: int) -> Split:
    return Split(
        encode=max(0, split.encode + change * (role is Role.ENCODE)),
        prefill=max(0, split.prefill + change * (role is Role.PREFILL)),
        decode=max(0, split.decode + change * (role is Role.DECODE)),
    )


def _split(counts: Mapping[Lane, int], group: str) -> Split:
    return Split(
        encode=counts.get(Lane(group, Role.ENCODE), 0),
        prefill=counts.get(Lane(group, Role.PREFILL), 0),
        decode=counts.get(Lane(group, Role.DECODE), 0),
    )


def _workers(count: int) -> str:
    return "1 worker" if count == 1 else f"{count} workers"
