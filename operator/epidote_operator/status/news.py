"""This file is about what of a tick is news to people: an Event for each. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from epidote_operator.spec.service_status import (
    Condition,
    ConditionStatus,
    ConditionType,
    DecisionStatus,
    MultimodalServiceStatus,
)
from epidote_planner.decision import Reason

WARNING, NORMAL = "Warning", "Normal"
# Decisions that say that the promise can't be kept, or not be looked after.
BAD_DECISIONS = frozenset(
    {
        Reason.SLO_UNREACHABLE.value,
        Reason.BUDGET_BOUND.value,
        Reason.METRICS_STALE.value,
        Reason.START_TIMED_OUT.value,
        Reason.WORKER_FAILED.value,
    }
)
# Bad news whose messages change at each look.
PASSING = frozenset({"NoRoutableWorker", "GatewayUnreachable", "HeadNotReady"})
TWO_OWNERS = "TwoOwners"  # somebody scales a pool whose size is the operator's
# What no service begins with unless somebody erred.
TOLD_AT_ONCE = (ConditionType.READY, ConditionType.SCALING_LIMITED, ConditionType.CACHE_POLICY)


@dataclass(frozen=True, kw_only=True)
class News:
    """One Event: its type, and what it says."""

    kind: str
    reason: str
    message: str


def news(
    before: MultimodalServiceStatus,
    after: MultimodalServiceStatus,
    decision: DecisionStatus | None,
) -> tuple[News, ...]:
    """What changed between two statuses; `decision`: the last one, if it differs from the former.

    Bad news are told when they begin or their reason changes, good ones when they end the bad. A
    service that comes up is no news until it serves.
    """
    found = []
    if decision is not None:
        kind = WARNING if decision.reason in BAD_DECISIONS else NORMAL
        found.append(News(kind=kind, reason=decision.reason, message=decision.text))
    known, now = _by_type(before), _by_type(after)
    for name in (
        ConditionType.READY,
        ConditionType.PROGRESSING,
        ConditionType.ABLE_TO_SCALE,
        ConditionType.SCALING_ACTIVE,
        ConditionType.SCALING_LIMITED,
        ConditionType.ROLE_SWITCHING,
        ConditionType.EXPERTS_PLACED,
        ConditionType.CACHE_POLICY,
    ):
        if (condition := now.get(name.value)) is not None:
            found += _changed(name, known.get(name.value), condition, bool(before.revision))
    return tuple(found)


def _changed(
    name: ConditionType, before: Condition | None, now: Condition, has_fleet: bool
) -> tuple[News, ...] | list[News]:
    was_bad = before is not None and _is_bad(name, before)
    told = News(kind=WARNING, reason=now.reason, message=now.message)
    if _is_bad(name, now):
        if before is None and (name not in TOLD_AT_ONCE or now.reason in PASSING):
            return ()  # how services begin
        is_known = before is not None and was_bad and (before.reason in PASSING or not has_fleet)
        if is_known and now.reason in PASSING:
            return ()  # it comes up still, or this has been told
        same = before is not None and (before.status, before.reason) == (now.status, now.reason)
        repeats = same and name is not ConditionType.READY
        unchanged = same and before is not None and before.message == now.message
        return () if repeats or unchanged else (told,)
    if was_bad and name is ConditionType.READY and now.status is ConditionStatus.TRUE:
        return (News(kind=NORMAL, reason=now.reason, message=now.message),)
    return ()


def _is_bad(name: ConditionType, condition: Condition) -> bool:
    """Whether somebody should look. Much that is False is as it should be: nothing progresses."""
    if name is ConditionType.SCALING_LIMITED:
        return condition.reason == TWO_OWNERS
    if condition.status is not ConditionStatus.FALSE:
        return False
    match name:
        case ConditionType.PROGRESSING:
            return condition.reason in ("ProgressDeadlineExceeded", "HeadNotReady")
        case ConditionType.SCALING_ACTIVE:
            return condition.reason.startswith("FailedGetMetrics")
        case ConditionType.ROLE_SWITCHING:
            return condition.reason == "RolledBack"
        case ConditionType.EXPERTS_PLACED:
            return condition.reason == "MoveLate"
        case ConditionType.CACHE_POLICY:
            return condition.reason in ("PolicyNotFound", "InvalidPolicy")
        case _:
            return True


def _by_type(status: MultimodalServiceStatus) -> Mapping[str, Condition]:
    return {condition.type: condition for condition in status.conditions}
