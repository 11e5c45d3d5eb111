"""This file is about starting a service and ending everything that it started, whatever happens.

The service's processes are this one's descendants, also those whose parents died (it is their
"subreaper" on Linux): they are found by that and by nothing else, so nobody else's are touched.
"""

import contextlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from epidote_core.errors import EpidoteError
from epidote_workers.process_tree import adopt_orphans, descendants, end
from epidote_workers.service_host import HostOrder
from epidote_workers.service_settings import ServiceSettings

Progress = Callable[[str], None]

STOP_S = 25.0  # for a graceful end, then everything is killed
KILL_S = 10.0
LONGEST_BASE = 21  # bytes: with our 19 and Ray's 65 a socket's path stays below its limit of 107


class StartFailed(EpidoteError):
    """The service did not come up, or ended by itself; the message says why."""


def temporary_directory() -> str:
    """A private directory with a path short enough for sockets."""
    base = tempfile.gettempdir()
    fits = len(os.fsencode(base)) <= LONGEST_BASE
    return tempfile.mkdtemp(prefix="epidote-", dir=base if fits else "/tmp")


class Supervisor:
    """One service. `stop` must be called, also after a failed start."""

    def __init__(self, *, keep_logs: bool = False) -> None:
        adopt_orphans()
        self._others = descendants()  # that were there before, if any
        self.directory = temporary_directory()
        self._log = Path(self.directory) / "service.log"
        self._keep_logs = keep_logs
        self._host: subprocess.Popen[bytes] | None = None
        self._failure: str | None = None
        self._is_up = threading.Event()

    def start(
        self,
        settings: ServiceSettings,
        *,
        dashboard: bool,
        progress: Progress,
        stop: threading.Event,
    ) -> None:
        """Returns when the service is up, or early once `stop` is set.

        Raises:
            StartFailed
        """
        reading, writing = os.pipe()
        with self._log.open("wb") as log:
            self._host = subprocess.Popen(
                [sys.executable, "-m", "epidote_workers.service_host", str(writing)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=(writing,),
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
            )
        os.close(writing)
        threading.Thread(target=self._listen, args=(reading, progress), daemon=True).start()
        assert self._host.stdin is not None
        order = HostOrder(settings=settings, directory=self.directory, dashboard=dashboard)
        with contextlib.suppress(BrokenPipeError):  # it died: found below
            self._host.stdin.write(pickle.dumps(order))
            self._host.stdin.flush()
        while not self._is_up.wait(0.1) and not stop.is_set():
            self.check()

    def check(self) -> None:
        """Raises `StartFailed` if the service has ended."""
        if self._host is not None and self._host.poll() is not None:
            raise StartFailed(self._failure or self._last_words())

    def stop(self, hurry: threading.Event) -> None:
        """End the service: gracefully if it is up and until `hurry` is set, then by SIGKILL."""
        if self._host is not None:
            assert self._host.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._host.stdin.close()
            deadline_s = time.monotonic() + STOP_S
            while (
                self._is_up.is_set()
                and self._host.poll() is None
                and time.monotonic() < deadline_s
                and not hurry.is_set()
            ):
                time.sleep(0.05)
        for patience_s in self._patience():
            if not end(descendants() - self._others, patience_s=patience_s):
                break
        if not self._keep_logs:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _patience(self) -> Iterator[float]:
        """Killed processes need a moment to go, and may have started others in their last one."""
        deadline_s = time.monotonic() + KILL_S
        while time.monotonic() < deadline_s:
            yield 0.0
            time.sleep(0.05)

    def _listen(self, reading: int, progress: Progress) -> None:
        with os.fdopen(reading) as reports:
            for line in reports:
                message = json.loads(line)
                if "progress" in message:
                    progress(message["progress"])
                self._failure = message.get("failed", self._failure)
                if "up" in message:
                    self._is_up.set()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the service's process ended without a word"
