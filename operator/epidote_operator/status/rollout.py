"""This file is about replacing a fleet by one of another revision, beside it: the next step, pure.

    new workers are missing, there is room     START some, at most `surge` at a time
    missing, no room, none starting            RETIRE an old worker of a lane with another one
    every lane has what it shall have          SHIFT: clients reach the new gateways
    no room and nothing to retire, but every   SHIFT with fewer: the rest follows when the old
      lane has somebody                          ones have left
    otherwise                                  WAIT

A rollout that has not moved for `progressDeadlineSeconds` has failed: its workers that never came
up leave, so that their GPUs return to the budget, and nothing more is started until the spec
changes.

After the shift the old gateways end their streams, then the old workers leave, and those that the
new revision had no room for start.

How many there shall be is fixed when the rollout begins, and kept in its status: the old fleet gets
smaller meanwhile, which is no reason for a smaller new one.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.service_status import MultimodalServiceStatus, RolloutStatus
from epidote_operator.status.conditions import timestamp, unix_time
from epidote_operator.status.fleet import Fleet, FleetWorker
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy


class RolloutStep(StrEnum):
    """What to do next."""

    START = "start"
    RETIRE = "retire"
    SHIFT = "shift"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True)
class RolloutMove:
    """A step and whom it concerns: a lane to start `count` in, or an old worker to retire."""

    step: RolloutStep
    lane: Lane | None = None
    count: int = 0
    worker: FleetWorker | None = None


WAIT = RolloutMove(step=RolloutStep.WAIT)
SHIFT = RolloutMove(step=RolloutStep.SHIFT)


def next_move(
    old: Fleet, new: Fleet, wanted: Mapping[Lane, int], *, surge: int, room: int
) -> RolloutMove:
    """The next step from `old` to `new`, which shall have `wanted`; `room` for more workers."""
    ready, assigned = new.ready(), new.assigned()
    if new.is_known and all(ready[lane] >= count for lane, count in wanted.items()):
        return SHIFT
    missing = Counter({lane: count - assigned[lane] for lane, count in wanted.items()})
    starting = sum(worker.state is WorkerState.STARTING for worker in new.staying)
    short = [lane for lane in missing if missing[lane] > 0]
    if not short or starting >= surge:
        return WAIT
    lane = min(short, key=lambda lane: (assigned[lane], lane))  # empty lanes first
    if room > 0:
        # One for each lane before the second of any: three cover every stage.
        count = min(room, surge - starting, missing[lane]) if assigned[lane] else 1
        return RolloutMove(step=RolloutStep.START, lane=lane, count=count)
    if starting or not new.is_known or any(worker.is_leaving for worker in old.workers):
        return WAIT  # nobody old leaves for somebody new that has not been heard of
    serving = old.ready()
    for worker in sorted(old.staying, key=lambda w: (w.num_running + w.num_waiting, w.name)):
        if worker.serves and serving[worker.lane] > 1:
            return RolloutMove(step=RolloutStep.RETIRE, worker=worker)
    covered = new.is_known and all(ready[lane] for lane, count in wanted.items() if count)
    return SHIFT if covered else WAIT


def progress(
    before: RolloutStatus | None,
    *,
    revision: str,
    wanted: Mapping[Lane, int],
    ready: int,
    old: int,
    deadline_s: float,
    now_s: float,
    shifted: bool = False,
) -> RolloutStatus:
    """How far the rollout has come; another revision begins anew."""
    now = RolloutStatus(
        revision=revision,
        ready_workers=ready,
        old_workers=old,
        wanted={str(lane): count for lane, count in wanted.items()},
        shifted=shifted,
        progressed_at=timestamp(now_s),
    )
    if before is None or _place(before) != _place(now):
        return now
    failed = now_s - unix_time(before.progressed_at) > deadline_s
    return now.model_copy(update={"progressed_at": before.progressed_at, "failed": failed})


def _place(rollout: RolloutStatus) -> tuple[object, ...]:
    return (rollout.revision, rollout.ready_workers, rollout.old_workers, rollout.shifted)


def wanted_lanes(before: MultimodalServiceStatus, policy: PlannerPolicy) -> dict[Lane, int]:
    """What the new fleet shall have: what the rollout began with, else the workers that are kept.

    Not what is desired, which may be advice that nobody follows. Another change in the middle of a
    rollout keeps the first one's counts. Bounds hold, those of the pool as well. Where lanes are
    other ones by now, a role's count is shared out evenly: the planner moves workers later.
    """
    kept = before.kept_workers if before.rollout is None else before.rollout.wanted
    sharers = Counter(lane.role for lane in policy.lanes)
    of_role: Counter[Role] = Counter()
    for name, count in kept.items():
        of_role[Lane.parse(name).role] += count
    known = {lane.role for lane in policy.lanes if str(lane) in kept}
    wanted = {}
    for lane in policy.lanes:
        bounds, share = policy.bounds(lane), of_role[lane.role] // sharers[lane.role]
        count = kept.get(str(lane), 0) if lane.role in known else share
        wanted[lane] = min(max(count, bounds.least), bounds.most)
    while sum(wanted.values()) > policy.max_workers:
        spare = {lane: count - policy.bounds(lane).least for lane, count in wanted.items()}
        lane = max(spare, key=lambda lane: (spare[lane], lane))
        if spare[lane] <= 0:
            break
        wanted[lane] -= 1
    return wanted
