"""This file is about not deciding on what was not seen: missing metrics are never zero load."""

from epidote_planner.decision import Hold, Reason
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot


def find_holds(
    snapshot: ClusterSnapshot, policy: PlannerPolicy, refused: tuple[Hold, ...] = ()
) -> tuple[Hold, ...]:
    """Lanes whose signals are missing or stale; one hold with lane None if traffic is.

    A lane without workers has no signals to miss. `refused`: what `take_in` found already.
    """
    timeout_s = policy.damping.metrics_timeout_s
    whole = tuple(hold for hold in refused if hold.lane is None)
    if whole:
        return whole
    if snapshot.traffic_at_s is None:
        return (Hold(lane=None, reason=Reason.METRICS_MISSING),)
    if snapshot.now_s - snapshot.traffic_at_s > timeout_s:
        return (Hold(lane=None, reason=Reason.METRICS_STALE),)
    staffed = {Lane(worker.group, worker.role) for worker in snapshot.workers}
    named = {hold.lane: hold for hold in refused}
    holds = []
    for lane in policy.lanes:
        if lane not in staffed:
            continue
        signals = snapshot.roles.get(lane.role)
        if lane in named:
            holds.append(named[lane])
        elif signals is None:
            holds.append(Hold(lane=lane, reason=Reason.METRICS_MISSING))
        elif snapshot.now_s - signals.measured_at_s > timeout_s:
            holds.append(Hold(lane=lane, reason=Reason.METRICS_STALE))
    return tuple(holds)
