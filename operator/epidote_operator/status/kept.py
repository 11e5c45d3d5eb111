"""This file is about the workers that a service keeps while nothing is decided. Pure.

It is the last decision that was carried out, lane by lane, and stands in the status: an heir knows
whom to replace though scaling is Off or Advisory, or metrics are missing.
"""

from collections.abc import Mapping

from epidote_operator.spec.scaling import ScalingMode
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_planner.decision import Plan
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy


def kept_workers(status: MultimodalServiceStatus, policy: PlannerPolicy) -> dict[Lane, int]:
    """Whom to replace if they are gone; nobody while a rollout says how many there shall be."""
    if status.rollout is not None:
        return {}
    kept = status.kept_workers
    return {
        lane: min(kept.get(str(lane), 0), policy.bounds(lane).most)
        for lane in policy.lanes
        if kept.get(str(lane), 0) > 0
    }


def decides(plan: Plan | None, mode: ScalingMode, policy: PlannerPolicy) -> bool:
    """Whether the number of workers is the planner's: it scales, and has metrics to do it by."""
    held = plan is None or any(hold.lane is None for hold in plan.holds)
    return mode is ScalingMode.AUTO and not held and not policy.fixed_pool


def renewed_kept(known: Mapping[str, int], there: Mapping[Lane, int]) -> dict[str, int]:
    """What is kept from now on where nobody decided. `there`: workers present, or asked for.

    The same number in other lanes was moved by hand, more was asked for by new bounds: both count.
    Fewer are a loss, and don't.
    """
    now = {str(lane): count for lane, count in sorted(there.items()) if count > 0}
    return now if sum(now.values()) >= sum(known.values()) else dict(known)
