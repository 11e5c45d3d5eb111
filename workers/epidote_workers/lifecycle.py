"""This file is about a worker's life as a pure state machine: no clock, no I/O.

    state      | event          | next                                  | action
    -----------+----------------+---------------------------------------+--------
    starting   | loaded         | verifying                             | VERIFY
    routable   | switch         | draining                              | DRAIN
    routable   | stop           | draining, for ever                    | DRAIN
    draining   | drained        | switching (stopping: draining)        | SWITCH
    draining   | drain_expired  | routable in the old role              | NOTHING
    switching  | switched       | verifying                             | VERIFY
    switching  | switch_failed  | switching back; a second time: failed | SWITCH
    verifying  | verified       | routable, epoch + 1 if a new role     | NOTHING
    verifying  | verify_failed  | switching back; a second time: failed | SWITCH
    any        | crashed        | failed, for ever                      | NOTHING

The driver sends events and performs the action that each is answered with. An event that does not
fit the state is the driver's bug: `InvalidTransition`.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from epidote_core.errors import EpidoteError
from epidote_core.roles import Role, WorkerState


class DrainPolicy(StrEnum):
    """What a draining worker does with the streams that it decodes."""

    WAIT = "wait"  # for their last token; not done at the deadline: back to the old role
    MIGRATE = "migrate"  # after a grace period it hands them back: the gateway resumes elsewhere


class Event(StrEnum):
    LOADED = "loaded"
    SWITCH = "switch"
    STOP = "stop"
    DRAINED = "drained"
    DRAIN_EXPIRED = "drain_expired"
    SWITCHED = "switched"
    SWITCH_FAILED = "switch_failed"
    VERIFIED = "verified"
    VERIFY_FAILED = "verify_failed"
    CRASHED = "crashed"


class Action(StrEnum):
    """What the driver does next; how it went is the next event."""

    NOTHING = "nothing"
    DRAIN = "drain"  # refuse new work; then DRAINED or DRAIN_EXPIRED
    SWITCH = "switch"  # set the engine to `Life.role`; then SWITCHED or SWITCH_FAILED
    VERIFY = "verify"  # prove `Life.role` on tiny work; then VERIFIED or VERIFY_FAILED


class InvalidTransition(EpidoteError):
    """An event that the state does not allow."""


@dataclass(frozen=True, kw_only=True)
class Life:
    """Where a worker is in its life.

    `role` is what the engine is set to, or being set to. `old_role` is what a switch under way
    returns to if it fails, None without a switch. `epoch` grows with each role gained, never with
    a switch that was rolled back.
    """

    role: Role
    state: WorkerState = WorkerState.STARTING
    epoch: int = 0  # the first role makes it 1
    old_role: Role | None = None
    goal: Role | None = None
    is_rolling_back: bool = False
    is_stopping: bool = False
    message: str = ""  # why the last switch was rolled back, or the worker failed

    @property
    def takes_work(self) -> bool:
        return self.state is WorkerState.ROUTABLE

    @property
    def is_switching(self) -> bool:
        return self.old_role is not None


def advance(
    life: Life, event: Event, *, role: Role | None = None, message: str = ""
) -> tuple[Life, Action]:
    """The next state and what to do about it. `role` belongs to SWITCH, `message` to failures.

    Raises:
        InvalidTransition: the event does not fit the state; a switch to the role it has.
    """
    match life.state, event:
        case WorkerState.FAILED, Event.CRASHED:
            return life, Action.NOTHING
        case _, Event.CRASHED:
            return _fail(life, message)
        case WorkerState.STARTING, Event.LOADED:
            return replace(life, state=WorkerState.VERIFYING), Action.VERIFY
        case WorkerState.ROUTABLE, Event.SWITCH if role is not None and role is not life.role:
            state = WorkerState.DRAINING
            life = replace(life, state=state, old_role=life.role, goal=role, message="")
            return life, Action.DRAIN
        case WorkerState.ROUTABLE, Event.STOP:
            return replace(life, state=WorkerState.DRAINING, is_stopping=True), Action.DRAIN
        case WorkerState.DRAINING, Event.DRAINED | Event.DRAIN_EXPIRED if life.is_stopping:
            return life, Action.NOTHING
        case WorkerState.DRAINING, Event.DRAINED:
            assert life.goal is not None
            return replace(life, state=WorkerState.SWITCHING, role=life.goal), Action.SWITCH
        case WorkerState.DRAINING, Event.DRAIN_EXPIRED:
            return _settle(life, message), Action.NOTHING
        case WorkerState.SWITCHING, Event.SWITCHED:
            return replace(life, state=WorkerState.VERIFYING), Action.VERIFY
        case WorkerState.VERIFYING, Event.VERIFIED if life.is_rolling_back:
            return _settle(life, life.message), Action.NOTHING
        case WorkerState.VERIFYING, Event.VERIFIED:
            return replace(_settle(life, ""), epoch=life.epoch + 1), Action.NOTHING
        case (WorkerState.SWITCHING, Event.SWITCH_FAILED) | (
            WorkerState.VERIFYING,
            Event.VERIFY_FAILED,
        ):
            return _roll_back(life, message)
        case _:
            raise InvalidTransition(f"{event} does not fit {life.state} as {life.role}")


def _settle(life: Life, message: str) -> Life:
    return replace(
        life,
        state=WorkerState.ROUTABLE,
        old_role=None,
        goal=None,
        is_rolling_back=False,
        message=message,
    )


def _roll_back(life: Life, message: str) -> tuple[Life, Action]:
    if life.old_role is None or life.is_rolling_back:  # nothing to return to
        return _fail(life, f"{life.message}; {message}" if life.is_rolling_back else message)
    life = replace(
        life,
        state=WorkerState.SWITCHING,
        role=life.old_role,
        is_rolling_back=True,
        message=message,
    )
    return life, Action.SWITCH


def _fail(life: Life, message: str) -> tuple[Life, Action]:
    life = replace(
        life,
        state=WorkerState.FAILED,
        old_role=None,
        goal=None,
        is_rolling_back=False,
        message=message,
    )
    return life, Action.NOTHING
