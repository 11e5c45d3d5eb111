"""This file is about starting the processes of a run on this host."""

import multiprocessing
import os
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Protocol

from epidote_loadgen.runner.child import Work


class Part(Protocol):
    """A process that carries out a part of a run, wherever it is."""

    pipe: Connection

    def end(self, *, deadline_s: float) -> None:
        """Wait for its end until then (of `time.monotonic`); then kill it."""
        ...


class Launcher(Protocol):
    """How a run gets its processes: on this host, or on a Ray cluster."""

    lead_s: float  # between the word and the start, for all processes to hear it

    def num_cores(self) -> int:
        """Of all that its processes may run on."""
        ...

    def launch(self, work: Work) -> Part: ...


class LocalPart:
    """A child process of this one."""

    def __init__(self, work: Work) -> None:
        self.pipe, theirs = multiprocessing.Pipe()
        with theirs:
            # Not multiprocessing.Process: its children import the caller's __main__ anew, the
            # whole command line with it. A group of its own, for a terminal's Ctrl-C to reach the
            # parent alone.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "epidote_loadgen.runner", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                process_group=0,
            )
        with suppress(OSError):  # it died: whoever reads the pipe notices
            self.pipe.send(work)

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, *, deadline_s: float) -> None:
        self.pipe.close()
        try:
            self._process.wait(max(0.0, deadline_s - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class LocalLauncher:
    """All processes on this host."""

    lead_s = 0.2

    def num_cores(self) -> int:
        if hasattr(os, "sched_getaffinity"):  # Linux: those that this process may use
            return len(os.sched_getaffinity(0))
        return os.cpu_count() or 1

    def launch(self, work: Work) -> LocalPart:
        return LocalPart(work)
