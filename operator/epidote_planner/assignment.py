"""This file is about which worker goes where: fresh ones first, then surplus, then new ones."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from epidote_core.roles import WorkerState
from epidote_planner.decision import Action, AddWorkers, RemoveWorker, SwitchRole
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.ratios import hurts
from epidote_planner.resizing import remove_surplus, start_missing
from epidote_planner.seating import Bench, Goal, is_short, seat, tolerance
from epidote_planner.snapshot import WorkerStatus


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Ordered actions and what they lead to."""

    switches: tuple[SwitchRole, ...]
    starts: tuple[AddWorkers, ...]
    removals: tuple[RemoveWorker, ...]
    targets: Mapping[Lane, int]
    last_switch_s: Mapping[str, float]
    cooling: bool  # a switch was wanted and is only late

    @property
    def actions(self) -> tuple[Action, ...]:
        """Switches (seconds) before removals and starts (minutes)."""
        return (*self.switches, *self.removals, *self.starts)


def assign(
    workers: tuple[WorkerStatus, ...],
    goal: Goal,
    last_switch_s: Mapping[str, float],
    now_s: float,
    policy: PlannerPolicy,
) -> Assignment:
    """Turn needs into moves. `workers` are those that count: not leaving, not given up."""
    bench = seat(workers, goal, last_switch_s, now_s=now_s, dwell_s=policy.dwell_s)
    switches = _fill_deficits(bench, goal, now_s, policy)
    if not switches and goal.guards and is_short(bench, goal):
        trial = seat(workers, goal, last_switch_s, now_s=now_s, dwell_s=policy.dwell_s)
        together = _all_together(trial, goal, now_s, policy)
        bench, switches = (trial, together) if together else (bench, switches)
    if not switches:
        switches = _rebalance(bench, goal, now_s, policy)
    removals = () if is_short(bench, goal) else remove_surplus(bench, goal, now_s, policy)
    starts = start_missing(bench, goal, policy) if not removals else ()
    return Assignment(
        switches=tuple(switches),
        starts=starts,
        removals=removals,
        targets=dict(bench.count),
        last_switch_s=bench.last_switch_s,
        cooling=bench.cooling,
    )


def _fill_deficits(
    bench: Bench, goal: Goal, now_s: float, policy: PlannerPolicy
) -> list[SwitchRole]:
    """One worker at a time to the lane that is worst off, until nothing can be given."""
    switches: list[SwitchRole] = []
    hopeless: set[Lane] = set()
    while True:
        short = [
            lane
            for lane, need in goal.needs.items()
            if bench.count[lane] < need and lane not in hopeless and lane not in goal.held
        ]
        if not short:
            return switches
        lane = min(short, key=lambda lane: (tolerance(bench, goal, lane), lane))
        found = _find_donor(bench, goal, lane, now_s, policy)
        if found is None:
            hopeless.add(lane)
            continue
        switches.append(_move(bench, found, lane, now_s))
        if goal.guards:  # what a guard forbade may be right beside this move
            hopeless.clear()


def _all_together(
    bench: Bench, goal: Goal, now_s: float, policy: PlannerPolicy
) -> list[SwitchRole]:
    """Every switch that is needed as one step, where a guard so narrow forbids each by itself.

    The guards hold when all have ended. Nothing is on its way already, so that this happens once.
    """
    if any(bench.coming.values()):
        return []
    before = dict(bench.count)
    switches = _fill_deficits(bench, replace(goal, guards=()), now_s, policy)
    after = bench.count
    return [] if hurts(goal.guards, (before, before), (after, after)) else switches


def _find_donor(
    bench: Bench, goal: Goal, target: Lane, now_s: float, policy: PlannerPolicy
) -> tuple[WorkerStatus, Lane] | None:
    """A fresh worker of a surplus lane, else the emptiest worker whose switch pays."""
    donors = [
        lane
        for lane in bench.seats
        if lane != target and lane not in goal.held and bench.count[lane] > goal.needs.get(lane, 0)
    ]
    donors.sort(key=lambda lane: (-tolerance(bench, goal, lane, -1), lane))
    guards = goal.guards
    donors = [lane for lane in donors if not bench.hurts_assigned(guards, one_move(lane, target))]
    for lane in donors:
        if bench.seats[lane].starting:
            return bench.seats[lane].starting[0], lane
    for lane in donors:
        if bench.ready[lane] <= goal.needs.get(lane, 0):
            continue
        if bench.hurts_serving(guards, one_move(lane, target)):
            bench.cooling = True  # the moves under way end in seconds
            continue
        if _switch_gain_s(bench, goal, lane, target, policy) < policy.min_switch_gain_s:
            continue
        movable = _movable(bench, lane, target, now_s, policy)
        if movable is not None:
            return movable, lane
    return None


def one_move(source: Lane, target: Lane) -> dict[Lane, int]:
    """What one switch changes."""
    return {source: -1, target: +1}


def _switch_gain_s(
    bench: Bench, goal: Goal, source: Lane, target: Lane, policy: PlannerPolicy
) -> float:
    """Worker-seconds a switch wins over the alternative: a new worker, or none at all."""
    cost = policy.switch_cost_s(source.role, target.role)
    away = cost + goal.drain_s.get(source, 0.0)
    if goal.may_start and bench.total < goal.limit and goal.room > 0:
        return policy.profile.startup_s - away - cost
    return policy.damping.shrink_window_s - away - cost


def _movable(
    bench: Bench, source: Lane, target: Lane, now_s: float, policy: PlannerPolicy
) -> WorkerStatus | None:
    """The emptiest worker that has served its dwell, unless the opposite switch was just made."""
    opposite = bench.last_switch_s.get(f"{target.key}>{source.key}")
    if opposite is not None and now_s - opposite < policy.damping.switch_cooldown_s:
        bench.cooling = True
        return None
    seats = bench.seats[source]
    if seats.young and seats.emptiest(seats.settled, seats.young) is seats.young[0]:
        bench.cooling = True
    return seats.settled[0] if seats.settled else None


def _move(bench: Bench, found: tuple[WorkerStatus, Lane], target: Lane, now_s: float) -> SwitchRole:
    """A moved worker counts at once, but is out of reach for the rest of the plan."""
    worker, source = found
    bench.take(worker, source)
    bench.count[target] += 1
    if worker.state is not WorkerState.STARTING:
        bench.coming[target] = bench.coming.get(target, 0) + 1
        bench.last_switch_s[f"{source.key}>{target.key}"] = now_s
    return SwitchRole(worker=worker.name, source=source, target=target)


def _rebalance(bench: Bench, goal: Goal, now_s: float, policy: PlannerPolicy) -> list[SwitchRole]:
    """Move one spare worker, if that makes the tightest lane clearly more tolerant of bursts."""
    lanes = [lane for lane in goal.needs if lane not in goal.held]
    givers = [
        lane
        for lane in lanes
        if bench.ready[lane] > goal.needs[lane] and bench.count[lane] > goal.needs[lane]
    ]
    takers = [lane for lane in lanes if bench.count[lane] < policy.bounds(lane).most]
    if not givers or not takers:
        return []
    giver = max(givers, key=lambda lane: (tolerance(bench, goal, lane, -1), lane))
    taker = min(takers, key=lambda lane: (tolerance(bench, goal, lane), lane))
    enough = policy.rebalance_gain * tolerance(bench, goal, taker)
    if giver == taker or tolerance(bench, goal, giver, -1) < enough:
        return []
    change = one_move(giver, taker)
    if bench.hurts_assigned(goal.guards, change) or bench.hurts_serving(goal.guards, change):
        return []
    worker = _movable(bench, giver, taker, now_s, policy)
    return [_move(bench, (worker, giver), taker, now_s)] if worker else []
