"""This file is about real-time priority: senders before payloads, and both before everything else.

Payloads at an ordinary priority would hold the interpreter while others have the processor; at the
senders' own they would keep another process' sender from it for as long as they take.
"""

import os
from contextlib import suppress

SENDERS, PAYLOADS = 2, 1


def take_precedence() -> None:
    """Real-time priority for this thread, and those that it starts.

    Raises:
        ValueError: the system has none, or refuses.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(SENDERS))
    except (AttributeError, OSError) as error:
        raise ValueError(
            f"limits.realtime: not to be had here ({getattr(error, 'strerror', 'no such call')}); "
            "on Linux it takes root, CAP_SYS_NICE or `ulimit -r`"
        ) from error


def give_precedence() -> None:
    """Of the thread that makes payloads: behind the senders, if those have real-time priority."""
    with suppress(AttributeError, OSError):
        if os.sched_getscheduler(0) == os.SCHED_RR:
            os.sched_setparam(0, os.sched_param(PAYLOADS))
