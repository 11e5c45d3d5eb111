"""This file is about the workers while they are being assigned: who sits where, and the goal."""

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.roles import WorkerState
from epidote_planner.groups import burst_tolerance
from epidote_planner.lane import Lane
from epidote_planner.ratios import Guards, hurts
from epidote_planner.snapshot import WorkerStatus

ARRIVING = (WorkerState.SWITCHING, WorkerState.DRAINING)  # those that leave have no seat


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What the assignment works towards. `held` lanes neither give nor take."""

    needs: Mapping[Lane, int]
    loads: Mapping[Lane, float]
    pool_target: int
    limit: int  # workers the pool may have at all
    room: int  # workers that may be started now: pods that still drain hold their GPUs
    may_start: bool
    held: frozenset[Lane]
    drain_s: Mapping[Lane, float]  # how long a worker of the lane takes to run empty
    guards: Guards = ()


@dataclass
class Seats:
    """A lane's workers that can be taken, the emptiest first. Whoever goes is first of a queue."""

    starting: deque[WorkerStatus] = field(default_factory=deque)
    settled: deque[WorkerStatus] = field(default_factory=deque)  # routable, dwell served
    young: deque[WorkerStatus] = field(default_factory=deque)  # routable, dwell not served

    def add(self, worker: WorkerStatus, now_s: float, dwell_s: float) -> None:
        if worker.state is WorkerState.STARTING:
            self.starting.append(worker)
        elif worker.state is WorkerState.ROUTABLE:
            served = now_s - worker.since_s >= dwell_s
            (self.settled if served else self.young).append(worker)

    def emptiest(self, *queues: deque[WorkerStatus]) -> WorkerStatus | None:
        """The emptiest worker at the head of `queues`."""
        return min((queue[0] for queue in queues if queue), key=_busy, default=None)


@dataclass
class Bench:
    """The workers while they are being assigned. Mutable, and lives for one plan."""

    seats: dict[Lane, Seats]
    count: dict[Lane, int]
    ready: dict[Lane, int]
    coming: dict[Lane, int] = field(default_factory=dict)  # on their way by a switch: seconds
    cooling: bool = False
    last_switch_s: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.count.values())

    def take(self, worker: WorkerStatus, lane: Lane) -> None:
        seats = self.seats[lane]
        for queue in (seats.starting, seats.settled, seats.young):
            if queue and queue[0] is worker:
                queue.popleft()
        self.count[lane] -= 1
        if worker.state is WorkerState.ROUTABLE:
            self.ready[lane] -= 1
        elif worker.state in ARRIVING:
            self.coming[lane] -= 1

    def hurts_assigned(self, guards: Guards, change: Mapping[Lane, int]) -> bool:
        """Whether a guard on the assigned workers would be broken, or broken further."""
        if not guards:
            return False
        after = _changed(self.count, change)
        return hurts(guards, (self.count, self.count), (after, after))

    def hurts_serving(self, guards: Guards, change: Mapping[Lane, int]) -> bool:
        """The same for those that serve, whichever of the moves under way ends first.

        Workers that start are left out: when they come up is nobody's choice.
        """
        if not guards:
            return False
        high = _changed(self.ready, self.coming)
        losses = {lane: by for lane, by in change.items() if by < 0}
        low_after = _changed(self.ready, losses)
        return hurts(guards, (self.ready, high), (low_after, _changed(high, change)))


def _changed(counts: Mapping[Lane, int], change: Mapping[Lane, int]) -> dict[Lane, int]:
    after = dict(counts)
    for lane, by in change.items():
        after[lane] = after.get(lane, 0) + by
    return after


def count_lanes(workers: tuple[WorkerStatus, ...]) -> dict[Lane, int]:
    """Workers of each lane, whatever they are doing."""
    counts: dict[Lane, int] = {}
    for worker in workers:
        lane = Lane(worker.group, worker.role)
        counts[lane] = counts.get(lane, 0) + 1
    return counts


def _busy(worker: WorkerStatus) -> tuple[int, str]:
    """The emptiest drains soonest."""
    return worker.num_running + worker.num_waiting, worker.name


def seat(
    workers: tuple[WorkerStatus, ...],
    goal: Goal,
    last_switch_s: Mapping[str, float],
    *,
    now_s: float,
    dwell_s: float,
) -> Bench:
    """Sorted once into queues, so that thousands of moves take no rescans."""
    seats = {lane: Seats() for lane in goal.needs}
    count, ready, coming = (dict.fromkeys(goal.needs, 0) for _ in range(3))
    for worker in sorted(workers, key=_busy):
        lane = Lane(worker.group, worker.role)
        seats.setdefault(lane, Seats()).add(worker, now_s, dwell_s)
        count[lane] = count.get(lane, 0) + 1
        ready[lane] = ready.get(lane, 0) + (worker.state is WorkerState.ROUTABLE)
        coming[lane] = coming.get(lane, 0) + (worker.state in ARRIVING)
    return Bench(
        seats=seats, count=count, ready=ready, coming=coming, last_switch_s=dict(last_switch_s)
    )


def is_short(bench: Bench, goal: Goal) -> bool:
    return any(bench.count[lane] < need for lane, need in goal.needs.items())


def tolerance(bench: Bench, goal: Goal, lane: Lane, extra: int = 0) -> float:
    return burst_tolerance(bench.count[lane] + extra, goal.loads.get(lane, 0.0))
