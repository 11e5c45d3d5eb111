"""A role switch as a state machine: every state of the worker, before and after the deadline."""

from dataclasses import replace

import pytest

from epidote_core.roles import Role, WorkerState
from epidote_operator.act.switches import Step, next_step, switch_state
from epidote_operator.spec.service_status import SwitchState
from epidote_operator.status.fleet import FleetWorker, SwitchIntent
from epidote_planner.lane import Lane

DECODE, ENCODE = Lane("default", Role.DECODE), Lane("default", Role.ENCODE)
ALL = Lane("default", Role.ALL)
INTENT = SwitchIntent(source=DECODE, target=ENCODE, epoch=4, started_s=100.0, deadline_s=130.0)
WORKER = FleetWorker(
    name="w",
    lane=DECODE,
    said=DECODE,
    state=WorkerState.ROUTABLE,
    since_s=0.0,
    epoch=4,
    intent=INTENT,
    is_labelled=False,
)
IN_TIME, LATE, STUCK = 110.0, 131.0, 200.0


@pytest.mark.parametrize(
    ("state", "said", "at_s", "step"),
    [
        (WorkerState.ROUTABLE, DECODE, IN_TIME, Step.ASK),
        (WorkerState.ROUTABLE, DECODE, LATE, Step.ROLL_BACK),
        (WorkerState.ROUTABLE, ENCODE, IN_TIME, Step.FINISH),
        (WorkerState.ROUTABLE, ENCODE, STUCK, Step.FINISH),
        (WorkerState.DRAINING, DECODE, IN_TIME, Step.WAIT),
        (WorkerState.DRAINING, DECODE, LATE, Step.WAIT),
        (WorkerState.DRAINING, DECODE, STUCK, Step.REPLACE),
        (WorkerState.SWITCHING, ENCODE, LATE, Step.WAIT),
        (WorkerState.VERIFYING, ENCODE, STUCK, Step.REPLACE),
        (WorkerState.STARTING, None, IN_TIME, Step.WAIT),
        (WorkerState.STARTING, None, LATE, Step.ROLL_BACK),
        (WorkerState.FAILED, DECODE, IN_TIME, Step.FORGET),
    ],
)
def test_next_step(state: WorkerState, said: Lane | None, at_s: float, step: Step) -> None:
    assert next_step(replace(WORKER, state=state, said=said), at_s, stuck_s=60.0) is step


@pytest.mark.parametrize(
    ("state", "said", "shown"),
    [
        (WorkerState.ROUTABLE, DECODE, SwitchState.UNLABELLED),
        (WorkerState.DRAINING, DECODE, SwitchState.DRAINING),
        (WorkerState.SWITCHING, ENCODE, SwitchState.SWITCHING),
        (WorkerState.SWITCHING, DECODE, SwitchState.ROLLING_BACK),
        (WorkerState.VERIFYING, ENCODE, SwitchState.VERIFYING),
    ],
)
def test_what_the_status_shows(state: WorkerState, said: Lane, shown: SwitchState) -> None:
    assert switch_state(replace(WORKER, state=state, said=said)) is shown


def test_an_intent_survives_its_annotation() -> None:
    assert SwitchIntent.from_json(INTENT.to_json()) == INTENT


def test_a_worker_that_stands_in_for_others_by_now_is_not_asked_again() -> None:
    """It serves its new role as well as every other: the register says for how long."""
    assert next_step(replace(WORKER, said=ALL, epoch=5), IN_TIME) is Step.FINISH


@pytest.mark.parametrize(
    ("epoch", "said", "at_s", "step"),
    [
        (4, ALL, IN_TIME, Step.ASK),
        (5, DECODE, IN_TIME, Step.FINISH),
        (6, ALL, IN_TIME, Step.ROLL_BACK),
        (4, ALL, LATE, Step.ROLL_BACK),
    ],
)
def test_a_worker_is_taken_back_from_every_stage_once(
    epoch: int, said: Lane, at_s: float, step: Step
) -> None:
    back = replace(INTENT, source=ALL, target=DECODE)
    assert next_step(replace(WORKER, intent=back, said=said, epoch=epoch), at_s) is step
