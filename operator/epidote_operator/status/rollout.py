"""This file is about replacing a fleet by one of another revision, beside it: the next step, pure.

    new workers are missing, there is room     START some, at most `surge` at a time
    missing, no room, none starting            RETIRE an old worker of a lane with another one
    new ones have no node for want of room     the same
    no lane of the old ones has two            RETIRE any, while there is another one, if what is
                                               there is enough for every lane and one old worker:
                                               that one serves every stage meanwhile
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

NO_ROOM_S = 5.0  # a scheduler looks again within a second of another pod's end


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
    why: str = ""  # where that is not what rollouts usually do


WAIT = RolloutMove(step=RolloutStep.WAIT)
SHIFT = RolloutMove(step=RolloutStep.SHIFT)


def next_move(
    old: Fleet,
    new: Fleet,
    wanted: Mapping[Lane, int],
    *,
    surge: int,
    room: int,
    full: str = "",
) -> RolloutMove:
    """The next step from `old` to `new`, which shall have `wanted`; `room` for more workers.

    `full`: what the scheduler says of new workers that it finds no room for; see `no_room`.
    """
    ready, assigned = new.ready(), new.assigned()
    if new.is_known and all(ready[lane] >= count for lane, count in wanted.items()):
        return SHIFT
    missing = Counter({lane: count - assigned[lane] for lane, count in wanted.items()})
    starting = [worker for worker in new.staying if worker.state is WorkerState.STARTING]
    if full:
        starting = [worker for worker in starting if worker.unplaced is None]
        return WAIT if starting else _make_room(old, new, wanted, full)
    short = [lane for lane in missing if missing[lane] > 0]
    if not short or len(starting) >= surge:
        return WAIT
    lane = min(short, key=lambda lane: (assigned[lane], lane))  # empty lanes first
    if room > 0:
        # One for each lane before the second of any: three cover every stage.
        count = min(room, surge - len(starting), missing[lane]) if assigned[lane] else 1
        return RolloutMove(step=RolloutStep.START, lane=lane, count=count)
    return WAIT if starting else _make_room(old, new, wanted)


def _make_room(
    old: Fleet, new: Fleet, wanted: Mapping[Lane, int], full: str = "the GPU budget is full"
) -> RolloutMove:
    """Somebody old leaves, or clients move to a new fleet that is not complete."""
    if not new.is_known or any(worker.is_leaving for worker in old.workers):
        return WAIT  # nobody old leaves for somebody new that has not been heard of
    serving = old.ready()
    by_load = sorted(old.staying, key=lambda w: (w.num_running + w.num_waiting, w.name))
    able = [worker for worker in by_load if worker.serves]
    for worker in able:
        if serving[worker.lane] > 1:
            return RolloutMove(step=RolloutStep.RETIRE, worker=worker)
    lanes = [lane for lane, count in wanted.items() if count]
    if all(new.ready()[lane] for lane in lanes):
        return SHIFT
    placed = sum(worker.unplaced is None for worker in new.staying)
    is_covered = all(any(w.serves_role(role) for w in able) for role in old.stages)
    if not old.stages or len(able) + placed <= len(lanes):
        told = f"{full}; every role of the old revision has one worker left, and none leaves"
        return RolloutMove(step=RolloutStep.WAIT, why=told)
    if len(able) > 1 and is_covered:
        told = f"{full}; {able[0].name} leaves, others of the old revision serve its role as well"
        return RolloutMove(step=RolloutStep.RETIRE, worker=able[0], why=told)
    return WAIT


def no_room(new: Fleet, progressed_s: float) -> str:
    """The scheduler's words where it has had no room for a new worker for some seconds, else "".

    What leaves takes a moment to be free: counted is from the last progress on as well.
    """
    for worker in new.staying:
        pod = worker.unplaced
        if pod is None or not pod.lacks_room:
            continue
        if new.at_s >= max(pod.since_s, progressed_s) + NO_ROOM_S:
            return f"no node has room for {worker.name} ({pod.why})"
    return ""


def waits_for(new: Fleet) -> str:
    """What the scheduler says of the first new worker without a node; "": all have one."""
    for worker in new.staying:
        if worker.unplaced is not None:
            return f"no node takes {worker.name} ({worker.unplaced.why})"
    return ""


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
    leaves_s: float = 0.0,
) -> RolloutStatus:
    """How far the rollout has come; another revision begins anew.

    `leaves_s`: how long those may take that are leaving now, who count until they are gone.
    """
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
    failed = now_s - unix_time(before.progressed_at) > deadline_s + leaves_s
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
