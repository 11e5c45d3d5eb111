"""This file is about performing a plan: first what is under way, then the plan, in its order.

It stops at the first failure: the next tick observes again, and every step may be repeated. The
executor remembers nothing; what must survive is in the fleet itself.
"""

import logging
from collections import Counter
from collections.abc import Iterable

from epidote_core.errors import EpidoteError
from epidote_core.roles import Role, WorkerState
from epidote_operator.act.hands import CannotAct, Hands
from epidote_operator.act.switches import STUCK_S, Step, next_step
from epidote_operator.status.fleet import Done, Fleet, FleetWorker, Outcome, SwitchIntent
from epidote_planner.decision import (
    Action,
    AddWorkers,
    AdviseGateway,
    MoveExperts,
    RemoveWorker,
    SwitchRole,
)
from epidote_planner.lane import Lane

logger = logging.getLogger(__name__)

# A register takes a worker that stood in back at once, a drain and a change of weights long.
REDUNDANT_S = 15.0
NO_ADVICE = AdviseGateway(cache_pressure=0.0, lossy_pressure=0.0, shed_ratio=0.0)


class Executor:
    """Acts through `hands`. Durations in seconds."""

    def __init__(self, hands: Hands, *, drain_deadline_s: float, stuck_s: float = STUCK_S) -> None:
        self._hands = hands
        self._drain_deadline_s, self._stuck_s = drain_deadline_s, stuck_s

    async def run(self, actions: tuple[Action, ...], fleet: Fleet) -> Outcome:
        """Continue switches, then take `actions`. Empty `actions`: only what is under way."""
        done: list[Done] = []
        deferred: list[str] = []
        assigned = fleet.assigned()
        try:
            for worker in fleet.workers:
                done += await self._continue(worker, fleet)
            if fleet.is_known and not any(isinstance(a, AdviseGateway) for a in actions):
                await self._hands.advise(NO_ADVICE)
            for action in actions:
                done += await self._take(action, fleet, assigned, deferred)
            if fleet.is_known and _may_match(fleet, done, assigned):
                await self._hands.match_size(assigned, fleet.wanted_workers)
        except EpidoteError as error:
            return Outcome(done=tuple(done), failure=str(error), deferred=tuple(deferred))
        return Outcome(done=tuple(done), deferred=tuple(deferred))

    async def _continue(self, worker: FleetWorker, fleet: Fleet) -> list[Done]:
        if worker.is_leaving or not fleet.is_known:
            return []
        if worker.adrift_since_s is not None:
            is_stuck = fleet.at_s > worker.adrift_since_s + self._drain_deadline_s + self._stuck_s
            return await self._replace(worker) if is_stuck else []
        if worker.intent is None:
            return await self._heal(worker, fleet)
        intent = worker.intent
        stood_in = intent.source.role is Role.ALL
        is_needed = stood_in and worker.redundant_since_s is None
        match next_step(worker, fleet.at_s, stuck_s=self._stuck_s):
            case Step.ASK if self._hands.refusal(worker) is None and not is_needed:
                await self._hands.ask_switch(worker, intent)
                return []
            case Step.FINISH:
                await self._hands.settle_switch(worker, intent.target, fleet.at_s)
                return [Done(verb="Switched", what=_moved(worker, intent), is_start=False)]
            case Step.ASK | Step.ROLL_BACK:
                is_late = fleet.at_s > intent.deadline_s
                why = self._hands.refusal(worker) or (
                    "the deadline has passed" if is_late else "every stage needs it"
                )
                home = intent.target if stood_in else intent.source
                await self._hands.settle_switch(worker, home, fleet.at_s)
                what = f"{_moved(worker, intent)}: {why}"
                return [Done(verb="RolledBack", what=what, is_start=False)]
            case Step.REPLACE:
                return await self._replace(worker)
            case _:
                return []

    async def _replace(self, worker: FleetWorker) -> list[Done]:
        await self._hands.remove_worker(worker, drain=False)
        return [Done(verb="Replace", what=f"{worker.name} (stuck)", is_start=False)]

    async def _heal(self, worker: FleetWorker, fleet: Fleet) -> list[Done]:
        """A worker in another role than its assignment, or off its routes, is put right.

        It came up in a role of its register's choice, or a switch was made by hand: where nobody
        asked for something else, what it serves is what counts. One that stands in for others keeps
        its assignment.
        """
        if worker.state is not WorkerState.ROUTABLE or worker.said is None:
            return []
        lane = worker.lane if worker.stands_in else worker.said
        if lane != worker.lane or not worker.is_labelled:
            await self._hands.settle_switch(worker, lane, fleet.at_s)
            return [Done(verb="Relabel", what=f"{worker.name} {lane}", is_start=False)]
        return await self._take_back(worker, fleet)

    async def _take_back(self, worker: FleetWorker, fleet: Fleet) -> list[Done]:
        """The register does this by itself; a worker that it forgot is ordered back, once.

        Not while anybody else is between two roles: what the others serve is not certain then.
        """
        since_s, said = worker.redundant_since_s, worker.said
        if since_s is None or said is None or fleet.at_s < since_s + REDUNDANT_S:
            return []
        if any(w.intent is not None or w.adrift_since_s is not None for w in fleet.staying):
            return []
        first = next(w for w in fleet.workers if w.redundant_since_s is not None)
        if worker is not first:  # one at a time: each of two may be what makes the other redundant
            return []
        action = SwitchRole(worker=worker.name, source=said, target=worker.lane)
        await self._switch(worker, action, fleet.at_s)
        return [Done(verb=SwitchRole.__name__, what=describe(action))]

    async def _take(
        self, action: Action, fleet: Fleet, assigned: Counter[Lane], deferred: list[str]
    ) -> list[Done]:
        match action:
            case AdviseGateway():
                await self._hands.advise(action)
                return [Done(verb="Advise", what=describe(action))]
            case MoveExperts():
                try:
                    await self._hands.move_experts(action)
                except EpidoteError as error:  # uneven experts are no reason to lack workers
                    logger.warning("experts not moved", extra={"why": str(error)})
                    return [Done(verb="NotMoved", what=f"{describe(action)}: {error}")]
            case SwitchRole():
                worker = fleet.worker(action.worker)
                if worker is None or worker.is_leaving or worker.intent is not None:
                    return []
                if worker.said is not None and worker.said.role is Role.ALL:
                    # It serves the target already; the register says when it may serve less.
                    await self._hands.assign(worker, action.target, fleet.at_s)
                    assigned[action.source] -= 1
                    assigned[action.target] += 1
                    return [Done(verb="Assign", what=f"{worker.name} {action.target}")]
                if adrift := [w.name for w in fleet.staying if w.adrift_since_s is not None]:
                    raise CannotAct(  # where it goes is unknown: one switch more may be too many
                        f"{', '.join(adrift)} switches without having been asked by this operator; "
                        "roles are decided when that has ended"
                    )
                await self._switch(worker, action, fleet.at_s)
                assigned[action.source] -= 1
                assigned[action.target] += 1
            case RemoveWorker():
                worker = fleet.worker(action.worker)
                if worker is None or worker.is_leaving:
                    return []
                assigned[worker.intent.target if worker.intent else worker.lane] -= 1
                served = worker.state is not WorkerState.STARTING
                await self._hands.remove_worker(worker, drain=served and not action.gave_up)
            case AddWorkers():
                added = await self._hands.add_workers(action.lane, action.count, fleet.at_s)
                assigned[action.lane] += added
                if added < action.count:
                    deferred.append(f"{describe(action)}: {added} now, the GPU budget is full")
                if not added:
                    return []
        return [Done(verb=type(action).__name__, what=describe(action))]

    async def _switch(self, worker: FleetWorker, action: SwitchRole, now_s: float) -> None:
        if worker.state is WorkerState.STARTING:
            await self._hands.assign(worker, action.target, now_s)
            return
        intent = SwitchIntent(
            source=action.source,
            target=action.target,
            epoch=worker.epoch,
            started_s=now_s,
            deadline_s=now_s + self._drain_deadline_s,
        )
        await self._hands.mark_switch(worker, intent)
        await self._hands.ask_switch(worker, intent)


def _may_match(fleet: Fleet, done: Iterable[Done], assigned: Counter[Lane]) -> bool:
    """Whether the register may be told counts: only while it would switch nobody to reach them.

    Told in mid-switch it would take the worker under way for one of its old role, and switch
    another one as well. The same goes for a worker that leaves, while another one is missing. And
    with a role that has just lost its last worker, or that nobody is assigned to yet: told fewer
    workers than stages it would have everybody serve all of them, where one is enough until the
    replacement is there.
    """
    roles = {lane.role for lane in +assigned}
    if {lane.role for lane in fleet.assigned()} - roles:
        return False
    if Role.ALL not in roles and not fleet.stages <= roles:
        return False
    if not fleet.stages and any(worker.stands_in for worker in fleet.staying):
        return False
    if not fleet.is_settled or any(step.verb == SwitchRole.__name__ for step in done):
        return False
    starts = any(worker.state is WorkerState.STARTING for worker in fleet.staying)
    return not (starts and len(fleet.staying) < len(fleet.workers))


def _moved(worker: FleetWorker, intent: SwitchIntent) -> str:
    return f"{worker.name} {intent.source}→{intent.target}"


def describe(action: Action) -> str:
    """One line for people: what, to whom."""
    match action:
        case SwitchRole():
            return f"{action.worker} {action.source}→{action.target}"
        case AddWorkers():
            return f"{action.count} {action.lane}"
        case RemoveWorker():
            why = " (gave up)" if action.gave_up else ""
            return f"{action.worker} {action.lane}{why}"
        case AdviseGateway():
            return (
                f"cache pressure {action.cache_pressure:.2f}, lossy {action.lossy_pressure:.2f}, "
                f"shed {action.shed_ratio:.2f}"
            )
        case MoveExperts():
            move = action.move
            return f"{move.num_moved} expert slots to {move.name}, imbalance {move.imbalance:.2f}"
