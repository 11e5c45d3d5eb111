"""This file is about a process that carries out a part of a run, as told through a pipe.

The pipe's descriptor is the one argument; the plan and the part's number come through it first.
From the child come Ready, Glances, and Done or Failed; from the parent Start, STOP, ABANDON. A
parent that is gone (end of the pipe) means ABANDON.
"""

import asyncio
import gc
import queue
import signal
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from multiprocessing.connection import Connection

from epidote_loadgen.client.address import InvalidTarget
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.runner.fast_loop import run_fast
from epidote_loadgen.runner.part import Glance, PartControl, run_part
from epidote_loadgen.runner.preparing import PayloadFailed
from epidote_loadgen.runner.self_watch import PartWatch

SLICE = 16  # records pickled at once: pickling holds the interpreter, and sends must not wait
SWITCH_S = 0.0001  # how long a thread may keep the interpreter from the event loop
GC_THRESHOLD = 100_000  # allocations; records leave by the pipe, so little is ever garbage


@dataclass(frozen=True)
class Ready:
    """The first payloads are made."""

    part: int


@dataclass(frozen=True)
class Start:
    """`start_s` on `time.monotonic`, which all processes of a host share."""

    start_s: float


class Command(StrEnum):
    """What the parent may say after Start."""

    STOP = "stop"
    ABANDON = "abandon"


@dataclass(frozen=True)
class Done:
    """The part is over and all its records were sent."""

    part: int
    watch: PartWatch


@dataclass(frozen=True)
class Failed:
    """The part can't go on. `is_usage`: what was asked for is wrong."""

    part: int
    message: str
    is_usage: bool


@dataclass(frozen=True)
class Work:
    """What a child is for."""

    plan: RunPlan
    part: int


def main(pipe: Connection) -> None:
    """The process's whole life."""
    work = pipe.recv()
    assert isinstance(work, Work)
    plan, part = work.plan, work.part
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them and tells us
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    sender = _Sender(pipe)
    try:
        watch = run_fast(_run(plan, part, pipe, sender.put))
        sender.put(Done(part, watch))
    except (InvalidTarget, ValueError) as error:
        sender.put(Failed(part, str(error), is_usage=True))
    except PayloadFailed as error:
        sender.put(Failed(part, f"a payload could not be made: {error}", is_usage=True))
    except asyncio.CancelledError:
        sender.put(Failed(part, "interrupted before the start", is_usage=False))
    except Exception as error:  # told to the parent, which voids the run
        sender.put(Failed(part, f"{type(error).__name__}: {error}", is_usage=False))
    finally:
        sender.close()


async def _run(
    plan: RunPlan,
    part: int,
    pipe: Connection,
    put: Callable[[object], None],
) -> PartWatch:
    loop = asyncio.get_running_loop()
    control = PartControl(
        ready=lambda: put(Ready(part)),
        start=loop.create_future(),
        stop=asyncio.Event(),
        abandon=asyncio.Event(),
        glance=put,
    )

    def obey(command: object) -> None:
        match command:
            case Start(start_s) if not control.start.done():
                control.start.set_result(start_s)
            case Command.STOP:
                control.stop.set()
            case _:
                control.stop.set()
                control.abandon.set()
                if not control.start.done():
                    control.start.cancel()

    threading.Thread(target=_listen, args=(pipe, loop, obey), name="commands", daemon=True).start()
    return await run_part(plan, part, control)


def _listen(
    pipe: Connection,
    loop: asyncio.AbstractEventLoop,
    obey: Callable[[object], None],
) -> None:
    command: object = None
    while command is not Command.ABANDON:
        try:
            command = pipe.recv()
        except (EOFError, OSError):
            command = Command.ABANDON
        try:
            loop.call_soon_threadsafe(obey, command)
        except RuntimeError:
            return  # the loop is closed: the part is over


class _Sender:
    """Writes to the pipe from a thread of its own, since a full pipe blocks."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._queue: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="pipe", daemon=True)
        self._thread.start()

    def put(self, message: object) -> None:
        """In small pieces, if it is a glance with many records."""
        if isinstance(message, Glance) and len(message.records) > SLICE:
            for at in range(0, len(message.records), SLICE):
                self._queue.put(replace(message, records=message.records[at : at + SLICE]))
        else:
            self._queue.put(message)

    def close(self) -> None:
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (message := self._queue.get()) is not None:
            try:
                self._pipe.send(message)
            except OSError:
                return  # the parent is gone
