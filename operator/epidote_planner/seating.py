"""This file is about the workers while they are being assigned: who sits where, and the goal."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from epidote_core.roles import WorkerState
from epidote_planner.groups import burst_tolerance
from epidote_planner.lane import Lane
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


@dataclass
class Bench:
    """The workers while they are being assigned. Mutable, and lives for one plan."""

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


def count_lanes(workers: tuple[WorkerStatus, ...]) -> dict[Lane, int]:
    """Workers of each lane, whatever they are doing."""
    counts: dict[Lane, int] = {}
    for worker in workers:
        lane = Lane(worker.group, worker.role)
        counts[lane] = counts.get(lane, 0) + 1
    return counts


def seat(
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


def is_short(bench: Bench, goal: Goal) -> bool:
    return any(bench.count[lane] < need for lane, need in goal.needs.items())


def tolerance(bench: Bench, goal: Goal, lane: Lane, extra: int = 0) -> float:
    return burst_tolerance(bench.count[lane] + extra, goal.loads.get(lane, 0.0))
