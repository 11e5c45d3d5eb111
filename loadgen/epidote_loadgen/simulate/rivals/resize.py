"""This file is about turning a wanted number of workers into actions, as a Deployment would."""

from collections.abc import Mapping

from epidote_core.roles import WorkerState
from epidote_planner.decision import Action, AddWorkers, RemoveWorker
from epidote_planner.lane import Lane
from epidote_planner.snapshot import ClusterSnapshot, WorkerStatus


def members(snapshot: ClusterSnapshot, lane: Lane) -> list[WorkerStatus]:
    """Workers that count for the lane."""
    return [
        worker
        for worker in snapshot.workers
        if not worker.leaving and worker.role is lane.role and worker.group == lane.group
    ]


def ready(workers: list[WorkerStatus]) -> list[WorkerStatus]:
    return [worker for worker in workers if worker.state is WorkerState.ROUTABLE]


def resize(snapshot: ClusterSnapshot, wanted: Mapping[Lane, int]) -> tuple[Action, ...]:
    """Starting workers go first, then the emptiest: kinder than a Deployment, which picks any."""
    removals: list[Action] = []
    starts: list[Action] = []
    for lane, count in wanted.items():
        workers = members(snapshot, lane)
        if count > len(workers):
            starts.append(AddWorkers(lane=lane, count=count - len(workers)))
        elif count < len(workers):
            workers.sort(
                key=lambda w: (
                    w.state is not WorkerState.STARTING,
                    w.num_running + w.num_waiting,
                    w.name,
                )
            )
            removals += [
                RemoveWorker(worker=w.name, lane=lane) for w in workers[: len(workers) - count]
            ]
    return (*removals, *starts)
