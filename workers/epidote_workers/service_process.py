"""This file is about `epidote serve` as a process of its own, for tests: from start to Ctrl-C."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

from epidote_core.errors import EpidoteError

START_S = 400.0  # every worker imports torch and Ray, on cores that others use too
STOP_S = 240.0


class NotServed(EpidoteError):
    """It ended before it was ready, or took too long; the message has what it said."""


@contextlib.contextmanager
def serving(
    *flags: str, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """`epidote serve` with these flags on any free port: the process and its URL, once it is ready.

    What it says on standard error goes to `log`; `environ` is added to this process's. At the end
    it gets a Ctrl-C, unless it has ended.

    Raises:
        NotServed
        subprocess.TimeoutExpired: it did not stop and was killed, and Ray's processes with it.
    """
    command = [sys.executable, "-m", "epidote_workers.cli", "serve", "--port", "0", *flags]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**os.environ, **(environ or {})},
            start_new_session=True,  # its own group: signals of this test run do not reach it
        )
    timer = threading.Timer(START_S, process.kill)
    timer.start()
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        timer.cancel()
        found = re.search(r"(http://\S+)/v1", ready)
        if found is None:
            process.kill()
            raise NotServed(f"the service did not start: {ready!r}\n{log.read_text()}")
        print(ready.strip())
        yield process, found[1]
    finally:
        timer.cancel()
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_S)
        finally:
            process.kill()  # nothing, where it has ended
