"""This file is about the processes that this one started, so that none of them outlives it.

A process is named by (pid, start time): a pid alone may be somebody else's by now. Linux only
(/proc); elsewhere the tree is empty and Ray's own shutdown has to do.
"""

import contextlib
import ctypes
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

Process = tuple[int, int]  # pid, start time in clock ticks since boot


PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h


def adopt_orphans() -> None:
    """Descendants whose parents die become this process's children, and stay in its tree."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux: orphans end with Ray
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _stat(pid: int) -> tuple[str, int, int] | None:
    """(state, parent, start time) of a process; None if it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return fields[0], int(fields[1]), int(fields[19])


def descendants(root: int | None = None) -> set[Process]:
    """Every process below `root` (this one)."""
    children: dict[int, list[Process]] = defaultdict(list)
    for entry in Path("/proc").glob("[0-9]*"):
        pid = int(entry.name)
        if stat := _stat(pid):
            children[stat[1]].append((pid, stat[2]))
    found: set[Process] = set()
    waiting = [root or os.getpid()]
    while waiting:
        for child in children[waiting.pop()]:
            found.add(child)
            waiting.append(child[0])
    return found


def is_running(process: Process) -> bool:
    """Whether it still runs; a zombie does not."""
    stat = _stat(process[0])
    return stat is not None and stat[2] == process[1] and stat[0] not in "ZX"


def command_name(process: Process) -> str:
    """The name of its executable (15 characters at most); "" if it is gone."""
    try:
        return Path(f"/proc/{process[0]}/comm").read_text().strip()
    except OSError:
        return ""


def runs_below(name: str, root: int | None = None) -> bool:
    """Whether a process with this executable runs below `root` (this one); zombies do not."""
    return any(command_name(p) == name and is_running(p) for p in descendants(root))


def end(processes: Iterable[Process], *, patience_s: float) -> list[Process]:
    """Wait for processes to end, then SIGKILL those that did not; returns the killed ones."""
    left = [process for process in processes if is_running(process)]
    deadline_s = time.monotonic() + patience_s
    while left and time.monotonic() < deadline_s:
        time.sleep(0.05)
        left = [process for process in left if is_running(process)]
    for pid, _ in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return left
