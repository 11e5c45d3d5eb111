"""This file is about removing workers that nobody needs and starting those that are missing."""

from itertools import combinations_with_replacement, islice

from epidote_planner.decision import AddWorkers, RemoveWorker
from epidote_planner.groups import share_spare
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.ratios import safe_order, share_guarded
from epidote_planner.seating import Bench, Goal, tolerance
from epidote_planner.snapshot import WorkerStatus

MOST_AT_ONCE = 6  # workers that leave together for a guard's sake


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
        leaving = _fewest_that_may_go(bench, goal, lanes)
        if not leaving:
            break
        for lane in leaving:
            if (worker := _first_to_go(bench, goal, lane)) is not None:
                bench.take(worker, lane)
                removals.append(RemoveWorker(worker=worker.name, lane=lane))
    return tuple(removals)


def _fewest_that_may_go(bench: Bench, goal: Goal, lanes: list[Lane]) -> tuple[Lane, ...]:
    """One worker of the first lane that can spare one, or where guards forbid that, a few at once.

    Guards so narrow that they fix a ratio are kept by removing, say, one of each role together.
    """
    if not goal.guards:
        able = (lane for lane in lanes if _first_to_go(bench, goal, lane) is not None)
        return tuple(islice(able, 1))
    spare = {
        lane: min(
            bench.count[lane] - goal.needs.get(lane, 0),
            max(0, bench.ready[lane] - goal.needs.get(lane, 0)) + len(bench.seats[lane].starting),
        )
        for lane in lanes
    }
    for size in range(1, min(MOST_AT_ONCE, bench.total - goal.pool_target) + 1):
        for batch in combinations_with_replacement(lanes, size):
            leave = {lane: -batch.count(lane) for lane in batch}
            serving = {
                lane: min(0, by + len(bench.seats[lane].starting)) for lane, by in leave.items()
            }
            if (
                all(-by <= spare[lane] for lane, by in leave.items())
                and not bench.hurts_assigned(goal.guards, leave)
                and not bench.hurts_serving(goal.guards, serving)
            ):
                return batch
    return ()


def _first_to_go(bench: Bench, goal: Goal, lane: Lane) -> WorkerStatus | None:
    seats = bench.seats[lane]
    if goal.guards and seats.starting:
        return seats.starting[0]
    if bench.ready[lane] > goal.needs.get(lane, 0):
        return seats.emptiest(seats.starting, seats.settled, seats.young)
    return seats.emptiest(seats.starting)


def start_missing(bench: Bench, goal: Goal, policy: PlannerPolicy) -> tuple[AddWorkers, ...]:
    """Deficits first, then the pool's reserve, where it adds the most tolerance.

    A deficit may take the pool over its target where the surplus elsewhere can't be switched; not
    where the switch is only late, for it is done before a new worker has started, and not where
    the need has not lasted yet.
    """
    late = bench.cooling and policy.dwell_s <= policy.profile.startup_s
    passing = sum(goal.needs.values()) > goal.pool_target
    room = (goal.pool_target if late or passing else goal.limit) - bench.total
    room = min(room, goal.room)
    if not goal.may_start or room <= 0:
        return ()
    before = dict(bench.count)
    grown = _grown(bench, goal, room, policy)
    if bench.hurts_assigned(goal.guards, {lane: n - before[lane] for lane, n in grown.items()}):
        return ()
    bench.count.update(grown)
    added = {lane: n - before[lane] for lane, n in grown.items() if n > before[lane]}
    return tuple(
        AddWorkers(lane=lane, count=added[lane]) for lane in safe_order(added, before, goal.guards)
    )


def _grown(bench: Bench, goal: Goal, room: int, policy: PlannerPolicy) -> dict[Lane, int]:
    """Deficits, then up to the pool's target; lanes that are held stay as they are."""

    def share(counts: dict[Lane, int], most: dict[Lane, int], spare: int) -> dict[Lane, int]:
        if not goal.guards:
            return share_spare(counts, goal.loads, most, spare)
        fixed = {lane: bench.count[lane] for lane in bench.count if lane not in counts}
        return share_guarded({**fixed, **counts}, goal.loads, goal.guards, {**fixed, **most}, spare)

    open_lanes = {lane: need for lane, need in goal.needs.items() if lane not in goal.held}
    before = {lane: bench.count[lane] for lane in open_lanes}
    wanted = {lane: max(need, before[lane]) for lane, need in open_lanes.items()}
    grown = share(before, wanted, room)
    added = sum(grown[lane] - before[lane] for lane in before)
    missing = min(goal.pool_target - bench.total, room) - added
    most = {lane: max(grown[lane], policy.bounds(lane).most) for lane in before}
    return share({lane: grown[lane] for lane in before}, most, max(0, missing))
