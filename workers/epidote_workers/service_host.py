"""This file is about the process that holds the private Ray cluster; `supervisor` starts it.

Ray blocks its process for seconds, at times with the interpreter's lock held, and takes signals
for itself. So it gets a process of its own that can be ended from outside at any moment.

stdin   a pickled `HostOrder`; then open until the service shall stop
fd N    (the first argument) what happens, as JSON lines: {"progress"}, {"up"}, {"failed"}
"""

import contextlib
import json
import os
import pickle
import shutil
import signal
import sys
import threading
from dataclasses import dataclass
from typing import IO

from epidote_core.errors import EpidoteError
from epidote_workers.local import LocalService
from epidote_workers.service_settings import ServiceSettings

LOOK_S = 1.0


@dataclass(frozen=True, kw_only=True)
class HostOrder:
    settings: ServiceSettings
    directory: str
    dashboard: bool


def main() -> int:
    """Returns the process's exit code: 0 stopped as asked, 1 failed."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the supervisor decides
    supervisor = os.getppid()
    order: HostOrder = pickle.load(sys.stdin.buffer)
    with os.fdopen(int(sys.argv[1]), "w") as reports:
        up, stopping = threading.Event(), threading.Event()
        arguments = (order.directory, up, stopping)
        threading.Thread(target=_wait_for_end_of_input, args=arguments, daemon=True).start()
        service = LocalService(order.settings, order.directory, dashboard=order.dashboard)
        try:
            service.start(lambda message: report(reports, progress=message))
        except EpidoteError as error:
            report(reports, failed=str(error))
            return 1
        except Exception as error:  # of Ray; told, since nothing else can be done with it
            report(reports, failed=repr(error))
            return 1
        up.set()
        report(reports, up=True)
        while not stopping.wait(LOOK_S):
            if not service.is_healthy():
                report(reports, failed="Ray ended unexpectedly")
                return 1
        service.stop()
        if os.getppid() != supervisor:  # it died: nobody else cleans up
            shutil.rmtree(order.directory, ignore_errors=True)
    return 0


def _wait_for_end_of_input(directory: str, up: threading.Event, stopping: threading.Event) -> None:
    """The supervisor closed it, or died, whatever killed it.

    Before the service is up there is nothing to end gracefully: with this process the kernel ends
    Ray's (they asked for that), and Ray's servers end theirs.
    """
    while sys.stdin.buffer.read(1):
        pass
    if not up.is_set():
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(1)
    stopping.set()


def report(reports: IO[str], **message: str | bool) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the end of input follows
        reports.write(json.dumps(message) + "\n")
        reports.flush()


if __name__ == "__main__":
    # Ray's threads may hang after a failure: everything that matters is done by now.
    code = main()
    sys.stdout.flush()
    os._exit(code)
