"""This file is about waking an event loop at a time, to tens of microseconds.

Event loops round timers to milliseconds (asyncio's epoll, libuv), which at 2,000 sends a second is
two whole gaps. On Linux a timerfd wakes the loop instead; elsewhere the loop's own timer must do.
"""

import asyncio
import ctypes
import math
import os
import sys
from collections.abc import Callable

CLOCK_MONOTONIC, TFD_TIMER_ABSTIME = 1, 1  # <linux/time.h>, <sys/timerfd.h>
TFD_NONBLOCK, TFD_CLOEXEC = os.O_NONBLOCK, 0o2000000
LONGEST_S = 1e9


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class PreciseTimer:
    """Calls `callback` once after each `arm`, at that time of `time.monotonic`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
        self._loop = loop
        self._callback = callback
        self._handle: asyncio.TimerHandle | None = None
        self._fd = _timerfd() if sys.platform == "linux" else -1
        if self._fd >= 0:
            self._libc = ctypes.CDLL(None, use_errno=True)
            self._spec = _Itimerspec()
            loop.add_reader(self._fd, self._expired)

    def arm(self, at_s: float) -> None:
        """Replace the time to call at. A time gone by: as soon as the loop comes round."""
        if self._fd < 0:
            self.disarm()
            # The loop's own clock need not be time.monotonic's; asyncio's and uvloop's are.
            self._handle = self._loop.call_at(at_s, self._callback)
            return
        fraction, whole = math.modf(min(max(at_s, 1e-6), LONGEST_S))
        self._spec.it_value.tv_sec = int(whole)
        self._spec.it_value.tv_nsec = int(fraction * 1e9)
        if self._spec.it_value.tv_sec == 0 and self._spec.it_value.tv_nsec == 0:
            self._spec.it_value.tv_nsec = 1  # all zero would disarm
        self._set()

    def disarm(self) -> None:
        if self._fd >= 0:
            self._spec.it_value.tv_sec = self._spec.it_value.tv_nsec = 0
            self._set()
        elif self._handle is not None:
            self._handle.cancel()

    def close(self) -> None:
        """No call comes after it."""
        self.disarm()
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1

    def _set(self) -> None:
        failed = self._libc.timerfd_settime(
            self._fd, TFD_TIMER_ABSTIME, ctypes.byref(self._spec), None
        )
        if failed:
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def _expired(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return  # armed anew between the wake-up and now
        self._callback()


def _timerfd() -> int:
    """A descriptor, or -1 where the C library has no timerfd."""
    create = getattr(ctypes.CDLL(None, use_errno=True), "timerfd_create", None)
    return int(create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)) if create is not None else -1
