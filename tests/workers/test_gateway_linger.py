"""A gateway that is to end goes on for a while: others learn later that it ends."""

import subprocess
import sys
import threading
from typing import Any

import pytest

from epidote_workers import cli_gateway
from epidote_workers.gateway_host import GatewayOrder

UNTIL_END_OF_INPUT = "import sys; sys.stdin.read()"  # as `gateway_host` ends
ORDER = GatewayOrder(head="h:1", node="n", host="h", port=1, run_directory="", stop_s=30.0)


class Node:
    def check(self) -> None:
        return


def test_it_lingers_with_the_gateway_up_and_only_then_ends_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def pretend(command: list[str], **kwargs: Any) -> subprocess.Popen[bytes]:
        started.append(start([sys.executable, "-c", UNTIL_END_OF_INPUT], **kwargs))
        return started[0]

    seen: list[tuple[float | None, bool]] = []

    class Hurry(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            process = started[0]
            assert process.stdin is not None
            seen.append((timeout, process.poll() is None and not process.stdin.closed))
            return False

    monkeypatch.setattr(cli_gateway.subprocess, "Popen", pretend)
    stop = threading.Event()
    stop.set()
    node: Any = Node()
    cli_gateway._run(ORDER, {}, node, stop, Hurry(), 5.0)
    assert seen == [(5.0, True)]
    assert started[0].wait(60) == 0
