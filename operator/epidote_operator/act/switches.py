"""This file is about one role switch as the operator drives it: a pure state machine.

The intent is written to a durable place first, then the worker is asked, then what came of it is
written down and the intent dropped. Whoever looks at (intent, worker) can go on from there:

    worker says                  | before the deadline    | after it
    -----------------------------+------------------------+--------------------------------
    gone                         | FORGET                 | FORGET
    starting, routing role known | WAIT                   | ROLL_BACK
    routable in the new role     | FINISH                 | FINISH
    routable in every role       | FINISH                 | FINISH
      (stands in for others)     |                        |
    routable in the old role     | ASK (again)            | ROLL_BACK
    routable in every role as    | ASK; epoch grew: it    | ROLL_BACK
      before the switch          |   is needed, ROLL_BACK |
    draining                     | WAIT                   | WAIT, then REPLACE (stuck)
    switching, verifying         | WAIT                   | WAIT, then REPLACE (stuck)
    failed                       | FORGET: the planner replaces it

Asking twice is safe: a worker on its way refuses, a worker that has the role says so. The worker
itself gives a drain up at the deadline and returns to its old role; `STUCK_S` later a worker
that still hangs is replaced, because it serves nobody and holds a GPU.
"""

from collections.abc import Iterable
from enum import StrEnum

from epidote_core.roles import Role, WorkerState
from epidote_operator.spec.service_status import SwitchState
from epidote_operator.status.fleet import FleetWorker

STUCK_S = 60.0  # beyond the deadline: rollback and verification load weights at most


class Step(StrEnum):
    """What to do next about a switch."""

    ASK = "ask"
    WAIT = "wait"
    FINISH = "finish"
    ROLL_BACK = "rollBack"
    REPLACE = "replace"
    FORGET = "forget"


def next_step(worker: FleetWorker, now_s: float, *, stuck_s: float = STUCK_S) -> Step:
    """The step that `worker`'s intent needs now. It has one."""
    intent = worker.intent
    assert intent is not None, "only asked about switches under way"
    is_late = now_s > intent.deadline_s
    match worker.state:
        case WorkerState.FAILED:
            return Step.FORGET
        case WorkerState.STARTING:  # restarted in mid-switch: it may come up in either role
            return Step.ROLL_BACK if is_late else Step.WAIT
        case WorkerState.ROUTABLE:
            stands_in = worker.said is not None and worker.said.role is Role.ALL
            stood_in = intent.source.role is Role.ALL
            if worker.said == intent.target or (stands_in and not stood_in):
                return Step.FINISH
            undone = stands_in and worker.epoch > intent.epoch
            return Step.ROLL_BACK if is_late or undone else Step.ASK
        case _:
            return Step.REPLACE if now_s > intent.deadline_s + stuck_s else Step.WAIT


def switch_state(worker: FleetWorker) -> SwitchState:
    """Where the switch is, for the status."""
    intent = worker.intent
    assert intent is not None, "only asked about switches under way"
    match worker.state:
        case WorkerState.DRAINING:
            return SwitchState.DRAINING
        case WorkerState.SWITCHING if worker.said == intent.source:
            return SwitchState.ROLLING_BACK
        case WorkerState.SWITCHING:
            return SwitchState.SWITCHING
        case WorkerState.VERIFYING:
            return SwitchState.VERIFYING
        case _:
            return SwitchState.ROUTABLE if worker.is_labelled else SwitchState.UNLABELLED


def switch_states(workers: Iterable[FleetWorker]) -> dict[str, SwitchState]:
    """By name, of those that switch."""
    return {worker.name: switch_state(worker) for worker in workers if worker.intent is not None}
