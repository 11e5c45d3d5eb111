"""This file is about background processes that outlive the command that started them.

A process is known by its id and its start time: an id that was given to somebody else meanwhile
is never signalled.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from epidote_core.errors import EpidoteError
from epidote_operator.testing.parent_death import signalled_at_our_death

POLL_S = 0.02


class ProcessFailed(EpidoteError):
    """A process of the cluster ended or did not become ready; the message has its last words."""


def spawn(
    folder: Path,
    name: str,
    arguments: Sequence[str | Path],
    environ: Mapping[str, str] | None = None,
    *,
    at_our_death: signal.Signals | None = None,
) -> None:
    """Start a process in a session of its own, its output in `{name}.log`.

    `at_our_death`: what it gets when this process ends, also by SIGKILL; None: it lives on.
    """
    with (folder / f"{name}.log").open("ab") as log:
        process = subprocess.Popen(
            [str(argument) for argument in arguments],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            cwd=folder,
            env=environ,
            preexec_fn=None if at_our_death is None else signalled_at_our_death(at_our_death),
        )
    note = {"pid": process.pid, "started": _start_time(process.pid)}
    (folder / f"{name}.pid").write_text(json.dumps(note))


def is_running(folder: Path, name: str) -> bool:
    return _pid(folder, name) is not None


def stop(folder: Path, name: str, number: int = signal.SIGKILL, *, wait_s: float = 10.0) -> None:
    """Signal the process and wait until it is gone. Not running: nothing.

    The default is SIGKILL: the state is thrown away, and a polite stop of the API server takes 9 s.
    """
    pid = _pid(folder, name)
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
        deadline_s = time.monotonic() + wait_s
        while _pid(folder, name) is not None and time.monotonic() < deadline_s:
            _reap(pid)
            time.sleep(POLL_S)
    (folder / f"{name}.pid").unlink(missing_ok=True)


def last_words(folder: Path, name: str, num_lines: int = 5) -> str:
    log = folder / f"{name}.log"
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-num_lines:])


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far; 0.0: it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds_of(folder: Path, name: str) -> float:
    """`cpu_seconds` of a process that `spawn` started."""
    pid = _pid(folder, name)
    return 0.0 if pid is None else cpu_seconds(pid)


def _pid(folder: Path, name: str) -> int | None:
    try:
        note = json.loads((folder / f"{name}.pid").read_text())
    except (OSError, ValueError):
        return None
    started = _start_time(note["pid"])
    return note["pid"] if started is not None and started == note["started"] else None


def _start_time(pid: int) -> str | None:
    """Clock ticks since boot at which the process started; None: gone, or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else fields[19]


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
