"""This file is about processes that end with the one that started them, however that one ends.

Linux only (`prctl`); elsewhere they are left to be stopped by hand.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
# Before any fork: a child must not load a library, another thread may hold the loader's lock.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


def signalled_at_our_death(number: signal.Signals) -> Callable[[], None]:
    """A `preexec_fn`: its process gets `number` when the thread that starts it is gone."""
    parent = os.getpid()

    def ask() -> None:
        if _LIBC is not None:
            _LIBC.prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:  # gone already
                os.kill(os.getpid(), number)

    return ask
