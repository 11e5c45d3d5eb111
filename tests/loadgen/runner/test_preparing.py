"""Payloads are ready before their time, and leave the interpreter to the sends."""

import time

from epidote_loadgen.arrivals.rate import constant
from epidote_loadgen.arrivals.schedule import ArrivalStream, OpenLoop
from epidote_loadgen.fakes import SameRequest
from epidote_loadgen.runner.preparing import MAX_AHEAD, Preparer

DEADLINE_S = 60.0


def test_sends_that_are_always_due_do_not_starve_themselves_of_payloads() -> None:
    wanted = 3 * MAX_AHEAD
    stream = ArrivalStream(weights={"chat": 1.0}, rate=constant(1e5), num_requests=wanted)
    deadline_s = time.monotonic() + DEADLINE_S
    with Preparer(OpenLoop(streams=(stream,)).slots(), SameRequest()) as preparer:
        preparer.next_send_s = time.monotonic  # now, whenever it is asked
        taken = []
        while not preparer.is_exhausted and time.monotonic() < deadline_s:
            if preparer.peek() is not None:
                taken.append(preparer.take().slot.index)
    assert taken == list(range(wanted))
