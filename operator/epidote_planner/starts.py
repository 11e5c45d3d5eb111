"""This file is about workers that were asked for and don't come up."""

from dataclasses import dataclass

from epidote_core.roles import WorkerState
from epidote_planner.memory import PlannerMemory
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot, WorkerStatus


@dataclass(frozen=True, kw_only=True)
class Starts:
    """Workers to give up, and until when no new ones are asked for."""

    given_up: tuple[WorkerStatus, ...]
    blocked_until_s: float | None


def review_starts(
    snapshot: ClusterSnapshot, memory: PlannerMemory, policy: PlannerPolicy
) -> Starts:
    """Give up starts past their deadline: they release their GPUs, and the target falls back.

    Asking again at once would meet the same full cluster, or crash in the same way: after a late
    start or a failure soon after one, new starts wait for the back-off. Workers that fail after
    long service are replaced at once.
    """
    deadline = snapshot.now_s - policy.damping.start_deadline_s
    late = tuple(
        worker
        for worker in snapshot.workers
        if (worker.state is WorkerState.STARTING and worker.since_s <= deadline)
        or worker.state is WorkerState.FAILED
    )
    blocked = memory.starts_blocked_until_s
    fresh_s = snapshot.now_s - policy.profile.startup_s - policy.damping.cold_start_s
    if any(w.state is WorkerState.STARTING or w.since_s >= fresh_s for w in late):
        blocked = snapshot.now_s + policy.damping.start_backoff_s
    if blocked is not None and blocked <= snapshot.now_s:
        blocked = None
    return Starts(given_up=late, blocked_until_s=blocked)
