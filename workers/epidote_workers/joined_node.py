"""This file is about a node that joins another process's cluster, and the end of its processes."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from epidote_core.errors import InvalidRequest
from epidote_workers.head_watch import HeadWatch, is_listening
from epidote_workers.process_tree import adopt_orphans, descendants, end, runs_below
from epidote_workers.ray_node import NodeOrder
from epidote_workers.supervisor import StartFailed, temporary_directory

LEAVE_S = 10.0  # for Ray's own processes, then they are killed
LOOK_S = 0.1
RETRY_S = 1.0


def parse_head(text: str) -> tuple[str, int]:
    """Split "host:port".

    >>> parse_head("127.0.0.1:6379")
    ('127.0.0.1', 6379)

    Raises:
        InvalidRequest: anything else.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidRequest(f"--head: must be host:port, got {text!r}", "head")
    return host.strip("[]"), int(port)


def address_towards(host: str, port: int) -> str:
    """This machine's address on the way to `host`; sends nothing.

    Raises:
        StartFailed: there is no way.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as probe:
            probe.connect(address)
            return str(probe.getsockname()[0])
    except OSError as error:
        raise StartFailed(f"--head: {host}:{port} can't be reached: {error}") from error


class JoinedNode:
    """One node's processes. `stop` must be called, also after a failed start."""

    def __init__(self) -> None:
        adopt_orphans()
        self._others = descendants()
        self.directory = Path(temporary_directory())
        self._log = self.directory / "node.log"
        self.run_directory = self.directory / "w"
        self.run_directory.mkdir(mode=0o700)
        self._node: subprocess.Popen[bytes] | None = None
        self._told: dict[str, str] = {}
        self._has_told = threading.Event()
        self._watch: HeadWatch | None = None

    def start(
        self,
        head: str,
        host: str,
        environment: Mapping[str, str],
        *,
        resources: Mapping[str, float],
        patience_s: float,
        stop: threading.Event,
    ) -> None:
        """Join; returns when the node is one of the cluster's, or early once `stop` is set.

        A head that is not up yet is waited for: pods of a fleet start in any order.

        Raises:
            StartFailed: with what Ray said last.
        """
        (self.directory / "r").mkdir(mode=0o700)
        order = NodeOrder(
            head=head, host=host, directory=str(self.directory / "r"), resources=dict(resources)
        )
        deadline_s = time.monotonic() + patience_s
        address = parse_head(head)
        # Only where somebody listens is it worth the seconds of CPU that importing Ray costs.
        while not is_listening(*address) or not self._try(order, environment, stop, deadline_s):
            if stop.wait(RETRY_S):
                return
            if time.monotonic() > deadline_s:
                said = self._told.get("failed") or self._last_words()
                raise StartFailed(f"not joined {head} within {patience_s:g} s: {said}")
        self._watch = HeadWatch(*address)
        self._watch.start()

    def _try(
        self,
        order: NodeOrder,
        environment: Mapping[str, str],
        stop: threading.Event,
        deadline_s: float,
    ) -> bool:
        """Whether the node has joined, or need not any more."""
        self._told, self._has_told = {}, threading.Event()
        with self._log.open("wb") as log:
            self._node = node = subprocess.Popen(
                [sys.executable, "-m", "epidote_workers.ray_node"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
            )
        assert node.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died: found below
            node.stdin.write(order.to_line())
            node.stdin.flush()
        listening = threading.Thread(target=self._listen, args=(node,), daemon=True)
        listening.start()
        while not self._has_told.wait(LOOK_S) and node.poll() is None:
            if stop.is_set():
                return True
            if time.monotonic() > deadline_s:
                node.kill()
        if "joined" in self._told:
            return True
        node.wait()
        listening.join()
        return False

    def check(self) -> None:
        """Raises `StartFailed` if the node has ended, as it does when the head is gone."""
        if self._node is None or self._node.poll() is not None:
            raise StartFailed(self._told.get("failed") or self._last_words())
        if self._has_told.is_set() and not runs_below("raylet", self._node.pid):
            raise StartFailed("Ray's process on this node ended: the head is gone, or let it go")
        if self._watch is not None and self._watch.is_replaced:
            raise StartFailed("another head has taken the place of the one that was joined")

    @property
    def is_well(self) -> bool:
        try:
            self.check()
        except StartFailed:
            return False
        return True

    def stop(self) -> None:
        """End the node and whatever runs on it."""
        if self._watch is not None:
            self._watch.stop()
        if self._node is not None and self._node.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._node.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._node.wait(LEAVE_S)
        deadline_s = time.monotonic() + LEAVE_S
        while end(descendants() - self._others, patience_s=0.0) and time.monotonic() < deadline_s:
            time.sleep(0.05)
        shutil.rmtree(self.directory, ignore_errors=True)

    def _listen(self, node: "subprocess.Popen[bytes]") -> None:
        assert node.stdout is not None
        for line in node.stdout:
            with contextlib.suppress(ValueError):  # Ray may print, too
                told = json.loads(line)
                if isinstance(told, dict):
                    self._told.update(told)
                    self._has_told.set()

    def _last_words(self) -> str:
        if not self._log.exists():
            return "nobody listens there"
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "the node's process ended without a word"
