"""This file is about who gets the CPU first where workers share a host: text before pictures.

Encoding a burst of pictures is seconds of computing that nobody waits for token by token. On a CPU
an encode worker's engine thread therefore steps back, and forward again when its role changes.
Unprivileged processes may only ever step back by niceness; they get the batch policy then, which is
weaker (no preemption of others on waking up) but may be undone.
"""

import contextlib
import os
import resource
import threading
from pathlib import Path

from epidote_core.roles import Role

ENCODER_NICE = 10  # a tenth of the CPU beside a busy thread at 0
CAP_SYS_NICE = 23  # linux/capability.h


def may_undo_nice() -> bool:
    """Whether this process may raise its priority again after lowering it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if resource.getrlimit(resource.RLIMIT_NICE)[0] >= 20:  # 20 - limit is the lowest niceness
            return True
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> CAP_SYS_NICE & 1)
    return False


def adjust_thread(role: Role) -> None:
    """Set the calling thread's priority for `role`; threads that it starts inherit it.

    Where the system does not let us, nothing happens: it only costs text some milliseconds.
    """
    steps_back = role is Role.ENCODE
    with contextlib.suppress(OSError, AttributeError):  # AttributeError: not Linux
        if may_undo_nice():
            own = os.getpriority(os.PRIO_PROCESS, os.getpid())  # the main thread's: as started
            nice = own + (ENCODER_NICE if steps_back else 0)
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
        else:
            policy = os.SCHED_BATCH if steps_back else os.SCHED_OTHER
            os.sched_setscheduler(threading.get_native_id(), policy, os.sched_param(0))
