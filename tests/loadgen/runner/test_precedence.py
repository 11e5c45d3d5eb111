"""Who makes payloads has no more precedence than it was given."""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from epidote_loadgen.runner.precedence import PAYLOADS, SENDERS, give_precedence


@pytest.mark.skipif(sys.platform != "linux", reason="Linux's calls")
def test_an_ordinary_thread_stays_as_it_is() -> None:
    def before_and_after() -> tuple[int, int]:
        before = os.sched_getscheduler(0)
        give_precedence()
        return before, os.sched_getscheduler(0)

    with ThreadPoolExecutor(1) as pool:
        before, after = pool.submit(before_and_after).result()
    assert before == after


def test_payloads_come_behind_the_senders() -> None:
    assert PAYLOADS < SENDERS
