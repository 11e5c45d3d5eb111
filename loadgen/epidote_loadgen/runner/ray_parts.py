"""This file is about spreading a run over a Ray cluster: one actor for each process.

An actor starts the same child process on its node and passes messages on, both ways. Nodes share no
monotonic clock, so the start travels as wall time; how well their clocks agree is up to NTP, and
every latency is measured on one node's clock alone.
"""

import multiprocessing
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from epidote_loadgen.runner.child import Command, Done, Failed, Start, Work
from epidote_loadgen.runner.launching import LocalPart

TAKE_S = 0.25  # how long an actor waits for its child's next message
MOST = 256  # messages at once
CALL_S = 60.0  # for an actor to answer


class RayLauncher:
    """Parts on the nodes of a cluster, spread. Needs Ray and Epidote on every node.

    `address` is Ray's own: "auto", host:port or ray://host:port; "" the cluster of this process.
    """

    lead_s = 2.0  # a message to every node takes longer than within a host

    def __init__(self, address: str) -> None:
        import ray

        if not ray.is_initialized():
            ray.init(address=address or None, log_to_driver=False)
        self._actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=4)(
            _RemotePart
        )

    def launch(self, work: Work) -> "RayPart":
        return RayPart(self._actor.remote(work))


class RayPart:
    """A part on some node, looking like one of this host: a thread feeds a pipe."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor
        self.pipe, self._theirs = multiprocessing.Pipe()
        self._over = threading.Event()
        for target in (self._receive, self._send):
            threading.Thread(target=target, name="ray-part", daemon=True).start()

    def end(self, *, deadline_s: float) -> None:
        import ray

        self._over.set()
        self.pipe.close()
        ray.kill(self._actor)  # its child hears the end of the pipe and follows

    def _receive(self) -> None:
        """From the actor into the pipe, until the part is over or the actor is lost."""
        import ray

        try:
            while not self._over.is_set():
                messages = ray.get(self._actor.take.remote(), timeout=CALL_S)
                for message in messages:
                    self._theirs.send(message)
                if any(isinstance(message, Done | Failed) for message in messages):
                    return
        except (ray.exceptions.RayError, OSError):
            pass  # the closed pipe tells: this part died
        finally:
            if not self._over.is_set():
                _close_quietly(self._theirs)

    def _send(self) -> None:
        """From the pipe to the actor."""
        import ray

        while True:
            try:
                message = self._theirs.recv()
                if isinstance(message, Start):
                    self._actor.start.remote(time.time() + message.start_s - time.monotonic())
                else:
                    self._actor.tell.remote(message)
            except (EOFError, OSError, ray.exceptions.RayError):
                return


class _RemotePart:
    """The actor's class. Runs on a node of the cluster."""

    def __init__(self, work: Work) -> None:
        self._part = LocalPart(work)
        self._ended = False

    def take(self) -> list[object]:
        """The child's next messages, [] if none came for a moment."""
        messages: list[object] = []
        while not self._ended and len(messages) < MOST:
            if not self._part.pipe.poll(0.0 if messages else TAKE_S):
                break
            try:
                messages.append(self._part.pipe.recv())
            except (EOFError, OSError):
                self._ended = True
                raise
        return messages

    def start(self, start_unix_s: float) -> None:
        self._part.pipe.send(Start(time.monotonic() + start_unix_s - time.time()))

    def tell(self, command: Command) -> None:
        self._part.pipe.send(command)


def _close_quietly(pipe: Connection) -> None:
    with suppress(OSError):  # the other thread was faster
        pipe.close()
