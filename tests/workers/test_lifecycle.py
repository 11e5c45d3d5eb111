"""This file is about a worker's life cycle: the table of transitions, and its laws."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.roles import Role, WorkerState
from epidote_workers.lifecycle import Action, Event, InvalidTransition, Life, advance

P, D = Role.PREFILL, Role.DECODE
ROUTABLE = Life(role=P, state=WorkerState.ROUTABLE, epoch=3)
DRAINING = replace(ROUTABLE, state=WorkerState.DRAINING, old_role=P, goal=D)
SWITCHING = replace(DRAINING, state=WorkerState.SWITCHING, role=D)
VERIFYING = replace(SWITCHING, state=WorkerState.VERIFYING)
BACK = replace(SWITCHING, role=P, is_rolling_back=True, message="why")
BACK_VERIFYING = replace(BACK, state=WorkerState.VERIFYING)
STOPPING = replace(ROUTABLE, state=WorkerState.DRAINING, is_stopping=True)


@pytest.mark.parametrize(
    ("life", "event", "expected", "action"),
    [
        (Life(role=P), Event.LOADED, Life(role=P, state=WorkerState.VERIFYING), Action.VERIFY),
        (
            Life(role=P, state=WorkerState.VERIFYING),
            Event.VERIFIED,
            Life(role=P, state=WorkerState.ROUTABLE, epoch=1),
            Action.NOTHING,
        ),
        (
            Life(role=P, state=WorkerState.VERIFYING),
            Event.VERIFY_FAILED,
            Life(role=P, state=WorkerState.FAILED, message="why"),
            Action.NOTHING,
        ),
        (ROUTABLE, Event.SWITCH, DRAINING, Action.DRAIN),
        (DRAINING, Event.DRAINED, SWITCHING, Action.SWITCH),
        (DRAINING, Event.DRAIN_EXPIRED, replace(ROUTABLE, message="why"), Action.NOTHING),
        (SWITCHING, Event.SWITCHED, VERIFYING, Action.VERIFY),
        (SWITCHING, Event.SWITCH_FAILED, BACK, Action.SWITCH),
        (VERIFYING, Event.VERIFIED, replace(ROUTABLE, role=D, epoch=4), Action.NOTHING),
        (VERIFYING, Event.VERIFY_FAILED, BACK, Action.SWITCH),
        (BACK, Event.SWITCHED, BACK_VERIFYING, Action.VERIFY),
        (BACK_VERIFYING, Event.VERIFIED, replace(ROUTABLE, message="why"), Action.NOTHING),
        (
            BACK,
            Event.SWITCH_FAILED,
            replace(ROUTABLE, state=WorkerState.FAILED, message="why; why"),
            Action.NOTHING,
        ),
        (ROUTABLE, Event.STOP, STOPPING, Action.DRAIN),
        (STOPPING, Event.DRAINED, STOPPING, Action.NOTHING),
        (STOPPING, Event.DRAIN_EXPIRED, STOPPING, Action.NOTHING),
        (
            SWITCHING,
            Event.CRASHED,
            replace(ROUTABLE, role=D, state=WorkerState.FAILED, message="why"),
            Action.NOTHING,
        ),
    ],
)
def test_table(life: Life, event: Event, expected: Life, action: Action) -> None:
    assert advance(life, event, role=D, message="why") == (expected, action)


@pytest.mark.parametrize(
    ("life", "event"),
    [
        (DRAINING, Event.SWITCH),  # one switch at a time
        (SWITCHING, Event.SWITCH),
        (STOPPING, Event.SWITCH),
        (Life(role=P), Event.SWITCH),
        (Life(role=P), Event.VERIFIED),
        (ROUTABLE, Event.DRAINED),
    ],
)
def test_events_that_do_not_fit_are_refused(life: Life, event: Event) -> None:
    with pytest.raises(InvalidTransition):
        advance(life, event, role=D)


def test_a_switch_to_the_same_role_is_refused() -> None:
    with pytest.raises(InvalidTransition):
        advance(ROUTABLE, Event.SWITCH, role=P)


@given(st.lists(st.tuples(st.sampled_from(Event), st.sampled_from(Role)), max_size=60))
def test_laws_of_any_history(history: list[tuple[Event, Role]]) -> None:
    life, routable_roles = Life(role=P), []
    for event, role in history:
        before = life
        try:
            life, action = advance(life, event, role=role)
        except InvalidTransition:
            continue
        assert life.epoch - before.epoch in (0, 1)
        assert life.takes_work == (life.state is WorkerState.ROUTABLE)
        if life.epoch > before.epoch:
            assert event is Event.VERIFIED, "a role is gained by verification alone"
            routable_roles.append(life.role)
        if life.takes_work:
            assert life.role is routable_roles[-1], "only a verified role takes work"
            assert not life.is_switching
            assert action is Action.NOTHING
        if before.state is WorkerState.FAILED:
            assert life == before, "failed is for ever"
        if before.is_stopping:
            assert life.state in (WorkerState.DRAINING, WorkerState.FAILED)


@given(st.lists(st.booleans(), min_size=8, max_size=8), st.sampled_from(Role))
def test_every_switch_ends_whatever_fails(luck: list[bool], role: Role) -> None:
    outcomes = {
        Action.DRAIN: (Event.DRAINED, Event.DRAIN_EXPIRED),
        Action.SWITCH: (Event.SWITCHED, Event.SWITCH_FAILED),
        Action.VERIFY: (Event.VERIFIED, Event.VERIFY_FAILED),
    }
    if role is P:
        return
    life, action = advance(ROUTABLE, Event.SWITCH, role=role)
    for good in luck:
        if action is Action.NOTHING:
            break
        life, action = advance(life, outcomes[action][0 if good else 1])
    assert action is Action.NOTHING
    assert life.state in (WorkerState.ROUTABLE, WorkerState.FAILED)
    assert (life.role is role and life.epoch == 4) or (life.epoch == 3)
