"""This file is about an encode worker's engine stepping back for text, and forward again."""

import os
import threading
from pathlib import Path

import pytest

from epidote_core.roles import Role
from epidote_workers import cpu_priority
from epidote_workers.cpu_priority import ENCODER_NICE, adjust_thread, may_undo_nice
from epidote_workers.fake_fleet import fleet_of

pytestmark = pytest.mark.skipif(not hasattr(os, "SCHED_BATCH"), reason="needs Linux")


def priority() -> tuple[int, int]:
    me = threading.get_native_id()
    return os.getpriority(os.PRIO_PROCESS, me), os.sched_getscheduler(me)


def in_a_thread_of_its_own(*roles: Role) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []

    def run() -> None:
        for role in roles:
            adjust_thread(role)
            found.append(priority())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return found


def test_without_the_right_to_undo_niceness_the_batch_policy_is_taken_and_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cpu_priority, "may_undo_nice", lambda: False)
    before = priority()
    found = in_a_thread_of_its_own(Role.ENCODE, Role.DECODE)
    assert [policy for _, policy in found] == [os.SCHED_BATCH, os.SCHED_OTHER]
    assert priority() == before, "of other threads nothing changes"


@pytest.mark.skipif(not may_undo_nice(), reason="this user may not raise priorities")
async def test_an_encoders_thread_steps_back_and_forward_with_its_role(tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, os.getpid())
    back = min(19, own + ENCODER_NICE)
    assert [nice for nice, _ in in_a_thread_of_its_own(Role.ENCODE, Role.ALL)] == [back, own]
    async with fleet_of(tmp_path, e=Role.ENCODE, p=Role.PREFILL) as fleet:
        worker = fleet.workers["e"]
        assert (await worker._running.engine.call(lambda _: priority()))[0] == back
        outcome = await worker.switch_role(Role.DECODE, deadline_s=60.0)
        assert outcome.ok
        assert (await worker._running.engine.call(lambda _: priority()))[0] == own
        assert (await fleet.workers["p"]._running.engine.call(lambda _: priority()))[0] == own
