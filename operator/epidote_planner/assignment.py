"""This file is about which worker goes where: fresh ones first, then surplus, then new ones."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.roles import WorkerState
from epidote_planner.decision import Action, AddWorkers, RemoveWorker, SwitchRole
from epidote_planner.groups import burst_tolerance, share_spare
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import WorkerStatus


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the assignment works towards. `held` lanes neither give nor take."""

    needs: Mapping[Lane, int]
    loads: Mapping[Lane, float]
    pool_target: int
    limit: int  # workers the pool may have at all
    may_start: bool
    held: frozenset[Lane]
    drain_s: Mapping[Lane, float]  # how long a worker of the lane takes to run empty


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


@dataclass
class Bench:
    """The workers while they are being assigned. Mutable, and never leaves this file."""

    workers: dict[Lane, list[WorkerStatus]]
    count: dict[Lane, int]
    ready: dict[Lane, int]
    cooling: bool = False
    last_switch_s: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.count.values())

    def take(self, worker: WorkerStatus, lane: Lane) -> None:
        self.workers[lane].remove(worker)
        self.count[lane] -= 1
        if worker.state is WorkerState.ROUTABLE:
            self.ready[lane] -= 1


def assign(
    workers: tuple[WorkerStatus, ...],
    goal: Goal,
    last_switch_s: Mapping[str, float],
    now_s: float,
    policy: PlannerPolicy,
) -> Assignment:
    """Turn needs into moves. `workers` are those that count: not leaving, not given up."""
    bench = _seat(workers, goal, last_switch_s)
    switches = _fill_deficits(bench, goal, now_s, policy)
    if not switches:
        switches = _rebalance(bench, goal, now_s, policy)
    removals = () if _short(bench, goal) else _remove_surplus(bench, goal, now_s, policy)
    starts = _start_missing(bench, goal, policy) if not removals else ()
    return Assignment(
        switches=tuple(switches),
        starts=starts,
        removals=removals,
        targets=dict(bench.count),
        last_switch_s=bench.last_switch_s,
        cooling=bench.cooling,
    )


def count_lanes(workers: tuple[WorkerStatus, ...]) -> dict[Lane, int]:
    """Workers of each lane, whatever they are doing."""
    counts: dict[Lane, int] = {}
    for worker in workers:
        lane = Lane(worker.group, worker.role)
        counts[lane] = counts.get(lane, 0) + 1
    return counts


def _seat(
    workers: tuple[WorkerStatus, ...], goal: Goal, last_switch_s: Mapping[str, float]
) -> Bench:
    seated: dict[Lane, list[WorkerStatus]] = {lane: [] for lane in goal.needs}
    for worker in workers:
        seated.setdefault(Lane(worker.group, worker.role), []).append(worker)
    for lane in seated.values():  # the emptiest first: it drains soonest
        lane.sort(key=lambda w: (w.num_running + w.num_waiting, w.name))
    return Bench(
        workers=seated,
        count={lane: len(members) for lane, members in seated.items()},
        ready={
            lane: sum(w.state is WorkerState.ROUTABLE for w in members)
            for lane, members in seated.items()
        },
        last_switch_s=dict(last_switch_s),
    )


def _short(bench: Bench, goal: Goal) -> bool:
    return any(bench.count[lane] < need for lane, need in goal.needs.items())


def _tolerance(bench: Bench, goal: Goal, lane: Lane, extra: int = 0) -> float:
    return burst_tolerance(bench.count[lane] + extra, goal.loads.get(lane, 0.0))


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
        lane = min(short, key=lambda lane: (_tolerance(bench, goal, lane), lane))
        found = _find_donor(bench, goal, lane, now_s, policy)
        if found is None:
            hopeless.add(lane)
            continue
        switches.append(_move(bench, found, lane, now_s))


def _find_donor(
    bench: Bench, goal: Goal, target: Lane, now_s: float, policy: PlannerPolicy
) -> tuple[WorkerStatus, Lane] | None:
    """A fresh worker of a surplus lane, else the emptiest worker whose switch pays."""
    donors = [
        lane
        for lane, members in bench.workers.items()
        if lane != target
        and lane not in goal.held
        and members
        and bench.count[lane] > goal.needs.get(lane, 0)
    ]
    donors.sort(key=lambda lane: (-_tolerance(bench, goal, lane, -1), lane))
    for lane in donors:
        for worker in bench.workers[lane]:
            if worker.state is WorkerState.STARTING:
                return worker, lane
    for lane in donors:
        if bench.ready[lane] <= goal.needs.get(lane, 0):
            continue
        if _switch_gain_s(bench, goal, lane, target, policy) < policy.min_switch_gain_s:
            continue
        movable = _movable(bench, lane, target, now_s, policy)
        if movable is not None:
            return movable, lane
    return None


def _switch_gain_s(
    bench: Bench, goal: Goal, source: Lane, target: Lane, policy: PlannerPolicy
) -> float:
    """Worker-seconds a switch wins over the alternative: a new worker, or none at all."""
    cost = policy.switch_cost_s(source.role, target.role)
    away = cost + goal.drain_s.get(source, 0.0)
    if goal.may_start and bench.total < goal.limit:
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
    for worker in bench.workers[source]:
        if worker.state is not WorkerState.ROUTABLE:
            continue
        if now_s - worker.since_s >= policy.damping.dwell_s:
            return worker
        bench.cooling = True
    return None


def _move(bench: Bench, found: tuple[WorkerStatus, Lane], target: Lane, now_s: float) -> SwitchRole:
    """A moved worker counts at once, but is out of reach for the rest of the plan."""
    worker, source = found
    bench.take(worker, source)
    bench.count[target] += 1
    if worker.state is not WorkerState.STARTING:
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
    giver = max(givers, key=lambda lane: (_tolerance(bench, goal, lane, -1), lane))
    taker = min(takers, key=lambda lane: (_tolerance(bench, goal, lane), lane))
    enough = policy.rebalance_gain * _tolerance(bench, goal, taker)
    if giver == taker or _tolerance(bench, goal, giver, -1) < enough:
        return []
    worker = _movable(bench, giver, taker, now_s, policy)
    return [_move(bench, (worker, giver), taker, now_s)] if worker else []


def _remove_surplus(
    bench: Bench, goal: Goal, now_s: float, policy: PlannerPolicy
) -> tuple[RemoveWorker, ...]:
    """Consolidation: a worker goes only if the lane meets its SLO without it (count > need).

    Workers that still start go first: nobody is served by them yet.
    """
    removals: list[RemoveWorker] = []
    while bench.total > goal.pool_target:
        lanes = [
            lane
            for lane, members in bench.workers.items()
            if members and lane not in goal.held and bench.count[lane] > goal.needs.get(lane, 0)
        ]
        lanes.sort(key=lambda lane: (-_tolerance(bench, goal, lane, -1), lane))
        found = next(
            (
                (lane, w)
                for lane in lanes
                for w in bench.workers[lane]
                if _goes(bench, goal, lane, w)
            ),
            None,
        )
        if found is None:
            break
        lane, worker = found
        bench.take(worker, lane)
        removals.append(RemoveWorker(worker=worker.name, lane=lane))
    return tuple(removals)


def _goes(bench: Bench, goal: Goal, lane: Lane, worker: WorkerStatus) -> bool:
    if worker.state is WorkerState.STARTING:
        return True
    return worker.state is WorkerState.ROUTABLE and bench.ready[lane] > goal.needs.get(lane, 0)


def _start_missing(bench: Bench, goal: Goal, policy: PlannerPolicy) -> tuple[AddWorkers, ...]:
    """Deficits first, then the pool's reserve, where it adds the most tolerance."""
    room = goal.limit - bench.total
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
    missing = goal.pool_target - (bench.total + sum(grown[n] - before[n] for n in grown))
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
