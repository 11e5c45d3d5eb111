"""This file is about the register's side of one role switch."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from epidote_core.errors import WorkerLost
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerView
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.assignment import Switch
from epidote_workers.roster import Roster


class SwitchCall(Protocol):
    """Tell one worker to switch; refused by the worker if its epoch is not the view's.

    Raises `WorkerLost` if it can't be reached.
    """

    def __call__(
        self, worker: WorkerView, role: Role, *, deadline_s: float
    ) -> Awaitable[SwitchOutcome]: ...


async def perform(
    switch: Switch,
    roster: Roster,
    *,
    call: SwitchCall,
    lost: Callable[[str], None],
    deadline_s: float,
) -> SwitchOutcome:
    """Have a worker switch, once it has started; every failure is an outcome, nothing is raised.

    A worker that has the role already is not asked. `lost` hears of one that can't be reached.
    """
    view = await roster.started(switch.worker_id, deadline_s)
    failed = SwitchOutcome(
        worker_id=switch.worker_id,
        from_role=switch.from_role,
        to_role=switch.to_role,
        ok=False,
        epoch=view.epoch if view else 0,
        message="the worker is gone",
    )
    if view is None:
        return failed
    if view.role is switch.to_role:
        return replace(failed, from_role=view.role, ok=True, message="nothing to do")
    try:
        outcome = await call(view, switch.to_role, deadline_s=deadline_s)
    except WorkerLost as error:
        lost(switch.worker_id)
        return replace(failed, message=str(error))
    except TimeoutError:
        return replace(failed, message=f"no answer within {deadline_s:g} s")
    known = roster.get(switch.worker_id)
    if outcome.ok and known is not None:
        role, epoch = outcome.to_role, outcome.epoch
        roster.put(replace(known, role=role, epoch=epoch, state=WorkerState.ROUTABLE))
    return outcome
