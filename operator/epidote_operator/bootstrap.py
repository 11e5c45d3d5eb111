"""This file is about the workers that a service has without the planner's say.

The planner holds a fleet whose metrics are missing, and a fleet that does not exist has none; with
scaling Off or Advisory nobody carries out what it says. So the least that the spec demands is
brought up, and the workers of the last decision are kept: one that ended or vanished is replaced in
its lane. Crashes are not repeated sooner than the service's back-off.
"""

from collections import Counter
from collections.abc import Mapping

from epidote_core.roles import WorkerState
from epidote_operator.status.fleet import Fleet
from epidote_planner.decision import AddWorkers, Plan, RemoveWorker
from epidote_planner.lane import Lane
from epidote_planner.policy import DampingPolicy, PlannerPolicy

NOBODY: Mapping[Lane, int] = {}


def missing_workers(
    fleet: Fleet,
    policy: PlannerPolicy,
    plan: Plan | None,
    kept: Mapping[Lane, int] = NOBODY,
    *,
    follows: bool = True,
) -> tuple[AddWorkers, ...]:
    """Starts that bring the fleet to its minima and to `kept`; none where the planner decides.

    `follows`: plans are carried out. Then starts wait while the planner waits after giving some up.
    Of `kept` the total counts: workers that were moved from one lane to another are not replaced.
    Workers beyond the lanes' minima and `kept` are decoders: the role whose lack is felt first.
    """
    if plan is not None and follows:
        is_held = policy.fixed_pool or any(hold.lane is None for hold in plan.holds)
        if not is_held or plan.memory.starts_blocked_until_s is not None:
            return ()
    have: Counter[Lane] = fleet.assigned()
    missing = {lane: max(0, policy.bounds(lane).least - have[lane]) for lane in policy.lanes}
    total = have.total() + sum(missing.values())
    for _ in range(min(sum(kept.values()), policy.max_workers) - total):
        lack = {lane: kept.get(lane, 0) - have[lane] - missing[lane] for lane in policy.lanes}
        missing[max(policy.lanes, key=lambda lane: lack[lane])] += 1
        total += 1
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


def ended_workers(fleet: Fleet, damping: DampingPolicy) -> tuple[RemoveWorker, ...]:
    """Workers to take away where the planner does not: their pods ended, or never came up.

    A pod that ended stays until it is as old as the back-off, and counts as there: one that crashes
    on its start is so replaced once a back-off, one that served for long at once.
    """
    fresh_s = fleet.at_s - damping.start_backoff_s
    late_s = fleet.at_s - damping.start_deadline_s
    return tuple(
        RemoveWorker(worker=worker.name, lane=worker.lane, gave_up=True)
        for worker in fleet.staying
        if (worker.state is WorkerState.FAILED and worker.since_s <= fresh_s)
        or (worker.state is WorkerState.STARTING and worker.since_s <= late_s)
    )
