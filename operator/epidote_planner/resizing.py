"""This file is about removing workers that nobody needs and starting those that are missing."""

from epidote_planner.decision import AddWorkers, RemoveWorker
from epidote_planner.groups import share_spare
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.seating import Bench, Goal, tolerance
from epidote_planner.snapshot import WorkerStatus


def remove_surplus(
    bench: Bench, goal: Goal, now_s: float, policy: PlannerPolicy
) -> tuple[RemoveWorker, ...]:
    """Consolidation: a worker goes only if the lane meets its SLO without it (count > need).

    Workers that still start go first: nobody is served by them yet.
    """
    removals: list[RemoveWorker] = []
    while bench.total > goal.pool_target:
        lanes = [
            lane
            for lane in bench.seats
            if lane not in goal.held and bench.count[lane] > goal.needs.get(lane, 0)
        ]
        lanes.sort(key=lambda lane: (-tolerance(bench, goal, lane, -1), lane))
        found = next(
            ((lane, w) for lane in lanes if (w := _first_to_go(bench, goal, lane)) is not None),
            None,
        )
        if found is None:
            break
        lane, worker = found
        bench.take(worker, lane)
        removals.append(RemoveWorker(worker=worker.name, lane=lane))
    return tuple(removals)


def _first_to_go(bench: Bench, goal: Goal, lane: Lane) -> WorkerStatus | None:
    seats = bench.seats[lane]
    if bench.ready[lane] > goal.needs.get(lane, 0):
        return seats.emptiest(seats.starting, seats.settled, seats.young)
    return seats.emptiest(seats.starting)


def start_missing(bench: Bench, goal: Goal, policy: PlannerPolicy) -> tuple[AddWorkers, ...]:
    """Deficits first, then the pool's reserve, where it adds the most tolerance.

    A deficit may take the pool over its target where the surplus elsewhere can't be switched; not
    where the switch is only late, for it is done before a new worker has started, and not where
    the need has not lasted yet.
    """
    late = bench.cooling and policy.damping.dwell_s <= policy.profile.startup_s
    passing = sum(goal.needs.values()) > goal.pool_target
    room = (goal.pool_target if late or passing else goal.limit) - bench.total
    room = min(room, goal.room)
    if not goal.may_start or room <= 0:
        return ()
    before = dict(bench.count)
    open_lanes = {lane: need for lane, need in goal.needs.items() if lane not in goal.held}
    grown = share_spare(
        {lane: bench.count[lane] for lane in open_lanes},
        goal.loads,
        {lane: max(need, bench.count[lane]) for lane, need in open_lanes.items()},
        room,
    )
    added = sum(grown[lane] - before[lane] for lane in grown)
    missing = min(goal.pool_target - bench.total, room) - added
    grown = share_spare(
        grown,
        goal.loads,
        {lane: max(count, policy.bounds(lane).most) for lane, count in grown.items()},
        max(0, missing),
    )
    bench.count.update(grown)
    return tuple(
        AddWorkers(lane=lane, count=count - before[lane])
        for lane, count in sorted(grown.items())
        if count > before[lane]
    )
