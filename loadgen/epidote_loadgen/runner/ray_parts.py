"""This file is about spreading a run over a Ray cluster: one actor for each process.

An actor starts the same child process on its node and passes messages on, both ways. Nodes share no
monotonic clock, so the start travels as wall time; how well their clocks agree is up to NTP, and
every latency is measured on one node's clock alone.
"""

import logging
import multiprocessing
import socket
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
PROBE_S = 10.0  # for a connection to where the cluster should be
JOIN_S = 90.0  # for the cluster to let us in
BEGIN_S = 100.0  # for its first answer: its node may have to load everything


class RayLauncher:
    """Parts on the nodes of a cluster, spread. Needs Ray and Epidote on every node.

    `address` is Ray's own: "auto", host:port or ray://host:port; "" the cluster of this process.

    Raises:
        ValueError: no Ray here, or no cluster there that lets us in.
    """

    lead_s = 2.0  # a message to every node takes longer than within a host

    def __init__(self, address: str, *, join_s: float = JOIN_S) -> None:
        try:
            import ray
        except ImportError as error:
            raise ValueError(f"--ray: Ray is not installed here: {error}") from error

        if not ray.is_initialized():
            _join(address, deadline_s=join_s)
        self._actor = ray.remote(num_cpus=1, scheduling_strategy="SPREAD", max_concurrency=4)(
            _RemotePart
        )

    def num_cores(self) -> int:
        import ray

        return int(ray.cluster_resources().get("CPU", 1))

    def launch(self, work: Work) -> "RayPart":
        return RayPart(self._actor.remote(work), work.part)


def _join(address: str, *, deadline_s: float) -> None:
    """Become a driver of the cluster. Left to itself Ray tries for minutes, or without end.

    Raises:
        ValueError: naming the address, and why.
    """
    import ray

    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
        except (OSError, OverflowError) as error:
            raise ValueError(f"--ray {address}: nobody answers there: {error}") from error
    problems: list[Exception] = []

    def join() -> None:
        try:
            ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
        except Exception as error:  # told by whoever waits
            problems.append(error)

    # A daemon: one that never comes back ends with the process.
    thread = threading.Thread(target=join, name="ray-join", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if thread.is_alive():
        raise ValueError(f"--ray {address}: did not let us in within {deadline_s:g} s")
    for problem in problems:
        raise ValueError(f"--ray {address}: {_first_line(problem)}") from problem


class RayPart:
    """A part on some node, looking like one of this host: a thread feeds a pipe.

    An actor that does not begin within `begin_s`, does not answer, or can't start its part ends as
    `Failed`, with the reason: whoever reads the pipe never waits for ever.
    """

    def __init__(self, actor: Any, part: int, *, begin_s: float = BEGIN_S) -> None:
        self._actor = actor
        self._part = part
        self._begin_s = begin_s
        self.pipe, self._theirs = multiprocessing.Pipe()
        self._telling = threading.Lock()  # both threads write into the pipe
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

        wait_s, late = self._begin_s, "did not begin: is there room for it?"
        try:
            while not self._over.is_set():
                messages = ray.get(self._actor.take.remote(), timeout=wait_s)
                wait_s, late = CALL_S, "no longer answers"
                for message in messages:
                    self._tell(message)
                if any(isinstance(message, Done | Failed) for message in messages):
                    return
        except ray.exceptions.GetTimeoutError:
            self._fail(f"its Ray actor {late} (waited {wait_s:g} s)")
        except ray.exceptions.RayError as error:
            self._fail(f"its Ray actor was lost: {_first_line(error)}")
        except OSError:
            pass  # the reader is gone
        finally:
            if not self._over.is_set():
                _close_quietly(self._theirs)

    def _send(self) -> None:
        """From the pipe to the actor."""
        import ray

        while True:
            try:
                message = self._theirs.recv()
                if not isinstance(message, Start):
                    self._actor.tell.remote(message)
                    continue
                start_unix_s = time.time() + message.start_s - time.monotonic()
            except (EOFError, OSError, ray.exceptions.RayError):
                return
            try:
                # Looked at: a part that never heard the word would be waited for without end.
                ray.get(self._actor.start.remote(start_unix_s), timeout=CALL_S)
            except ray.exceptions.RayError as error:
                self._fail(f"its Ray actor could not be started: {_first_line(error)}")

    def _tell(self, message: object) -> None:
        with self._telling:
            self._theirs.send(message)

    def _fail(self, why: str) -> None:
        """Told as any other death of a part."""
        if self._over.is_set():
            return
        told = f"process {self._part} of the load generator died: {why}"
        with suppress(OSError):
            self._tell(Failed(self._part, told, is_usage=False))


def _first_line(error: Exception) -> str:
    """Of Ray's many; a traceback from another node says no more."""
    cause = getattr(error, "cause", None) or error
    return f"{type(cause).__name__}: {cause}".splitlines()[0][:200]


class _RemotePart:
    """The actor's class. Runs on a node of the cluster."""

    def __init__(self, work: Work) -> None:
        self._part = LocalPart(work)

    def take(self) -> list[object]:
        """The child's next messages, [] if none came for a moment.

        Raises:
            EOFError, OSError: it ended, and everything that it told was taken.
        """
        messages: list[object] = []
        while len(messages) < MOST and self._part.pipe.poll(0.0 if messages else TAKE_S):
            try:
                messages.append(self._part.pipe.recv())
            except (EOFError, OSError):
                # A child may end right after its last word: that must arrive first.
                if messages:
                    break
                raise
        return messages

    def start(self, start_unix_s: float) -> None:
        self._part.pipe.send(Start(time.monotonic() + start_unix_s - time.time()))

    def tell(self, command: Command) -> None:
        self._part.pipe.send(command)


def _close_quietly(pipe: Connection) -> None:
    with suppress(OSError):  # the other thread was faster
        pipe.close()
