"""This file is about running a service for the length of a measurement: ours, or a peer's."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def get_json(url: str, timeout_s: float = 5.0) -> Any:
    with urllib.request.urlopen(url, timeout=timeout_s) as reply:
        return json.load(reply)


@contextlib.contextmanager
def running(
    command: list[str], *, ready_url: str, log_path: str, deadline_s: float, env: dict[str, str]
) -> Iterator[float]:
    """Start `command`, wait until `ready_url` answers 200, yield the seconds it took, end it.

    Raises:
        RuntimeError: it ended or was not ready in time; the message holds the log's last lines.
    """
    started_s = time.monotonic()
    with open(log_path, "w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, **env}, start_new_session=True
        )
    try:
        while True:
            with (
                contextlib.suppress(urllib.error.URLError, OSError),
                urllib.request.urlopen(ready_url, timeout=2.0),
            ):
                break  # any other status than 2xx raises
            if process.poll() is not None or time.monotonic() - started_s > deadline_s:
                with open(log_path) as log:
                    tail = "".join(log.readlines()[-20:])
                raise RuntimeError(f"{command[0]} was not ready in {deadline_s} s:\n{tail}")
            time.sleep(0.1)
        yield time.monotonic() - started_s
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)  # its own session: nobody else's process
                process.wait(10)


@contextlib.contextmanager
def epidote(*flags: str, model: str = "demo", deadline_s: float = 180.0) -> Iterator[str]:
    """`epidote serve` with these flags; yields the base URL."""
    port = free_port()
    command = [sys.executable, "-m", "epidote_workers.cli", "serve", "--model", model]
    command += ["--port", str(port), *flags]
    url = f"http://127.0.0.1:{port}"
    with running(
        command,
        ready_url=f"{url}/readyz",
        log_path=f"/tmp/epidote-bench-{port}.log",
        deadline_s=deadline_s,
        env={},
    ) as ready_s:
        print(f"# epidote {' '.join(flags)}: ready after {ready_s:.1f} s", file=sys.stderr)
        yield url
