"""This file is about the workers that a service needs before anything can be measured.

The planner holds a fleet whose metrics are missing, and a fleet that does not exist has none. So
the least that the spec demands is brought up, and kept, without asking it.
"""

from collections import Counter

from epidote_operator.status.fleet import Fleet
from epidote_planner.decision import AddWorkers, Plan
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy


def missing_minimum(
    fleet: Fleet, policy: PlannerPolicy, plan: Plan | None
) -> tuple[AddWorkers, ...]:
    """Starts that bring every lane and the pool to its minimum; none where the planner decides.

    Workers beyond the lanes' minima are decoders: the role whose lack is felt first. Starts wait
    while the planner waits after giving some up.
    """
    if plan is not None:
        is_held = any(hold.lane is None for hold in plan.holds)
        if not is_held or plan.memory.starts_blocked_until_s is not None:
            return ()
    have: Counter[Lane] = fleet.assigned()
    missing = {lane: max(0, policy.bounds(lane).least - have[lane]) for lane in policy.lanes}
    total = have.total() + sum(missing.values())
    spare = min(policy.pool.least, policy.max_workers) - total
    if spare > 0:
        last = policy.lanes[-1]
        missing[last] += spare
    room = max(0, policy.max_workers - have.total())
    starts = []
    for lane, count in missing.items():
        taken = min(count, room)
        room -= taken
        if taken:
            starts.append(AddWorkers(lane=lane, count=taken))
    return tuple(starts)
