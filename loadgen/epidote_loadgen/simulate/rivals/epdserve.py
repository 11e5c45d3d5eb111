"""This file is about EPDServe's role switching (arXiv 2501.05460): the longest queue receives.

Every five seconds; nothing while every queue is at least half the longest; the donor is the
stage with the most workers beyond one among those with a shorter queue; one switch at a time.
"""

from dataclasses import dataclass
from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_loadgen.simulate.policy import Decision, Policy
from epidote_loadgen.simulate.rivals.resize import members, ready
from epidote_planner.decision import SwitchRole
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.snapshot import ClusterSnapshot


@dataclass(frozen=True, kw_only=True)
class LongestQueue:
    """`count_running` adds what runs to the queue: with continuous batching nothing queues."""

    interval_s: float = 5.0
    count_running: bool = False


def longest_queue(rule: LongestQueue) -> Policy:
    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        at_s = memory["at_s"] if memory else -rule.interval_s
        moving = any(
            worker.state in (WorkerState.DRAINING, WorkerState.SWITCHING)
            for worker in snapshot.workers
        )
        if moving or snapshot.now_s - at_s < rule.interval_s - 1e-9:
            return Decision(memory=memory, reason="Waiting")
        queues = {role: _queue(snapshot, role, rule) for role in SPLIT_ROLES}
        counts = {role: len(members(snapshot, Lane(DEFAULT_GROUP, role))) for role in SPLIT_ROLES}
        chosen = decide_migration(queues, counts)
        if chosen is None:
            return Decision(memory={"at_s": snapshot.now_s}, reason="Balanced")
        source, target = (Lane(DEFAULT_GROUP, role) for role in chosen)
        workers = ready(members(snapshot, source))
        if not workers:
            return Decision(memory={"at_s": snapshot.now_s}, reason="Balanced")
        # The authors take the last engine of the list, not the emptiest.
        action = SwitchRole(worker=workers[-1].name, source=source, target=target)
        return Decision(
            actions=(action,),
            memory={"at_s": snapshot.now_s},
            reason="LongestQueue",
            text=f"{source} to {target}",
        )

    return decide


def decide_migration(queues: dict[Role, int], counts: dict[Role, int]) -> tuple[Role, Role] | None:
    """(donor, receiver), or None."""
    longest = max(queues.values())
    target = next(role for role in SPLIT_ROLES if queues[role] == longest)
    if all(queue >= longest / 2 for queue in queues.values()):
        return None
    donor, spare = None, 0
    for role in SPLIT_ROLES:
        if role is target or queues[role] >= longest or counts[role] <= 1:
            continue
        if counts[role] - 1 > spare:
            donor, spare = role, counts[role] - 1
    return (donor, target) if donor else None


def _queue(snapshot: ClusterSnapshot, role: Role, rule: LongestQueue) -> int:
    signals = snapshot.roles[role]
    return signals.num_waiting + (signals.num_running if rule.count_running else 0)
