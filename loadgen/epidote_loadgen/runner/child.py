"""This file is about a process that carries out a part of a run, as told through a pipe.

The pipe's descriptor is the one argument; the plan and the part's number come through it first.
From the child come Ready, Glances, and Done or Failed; from the parent Start, STOP, ABANDON. A
parent that is gone (end of the pipe) means ABANDON.
"""

import asyncio
import gc
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection

from epidote_loadgen.client.address import InvalidTarget
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.runner.fast_loop import run_fast
from epidote_loadgen.runner.outbox import Outbox
from epidote_loadgen.runner.part import PartControl, run_part
from epidote_loadgen.runner.precedence import take_precedence
from epidote_loadgen.runner.preparing import PayloadFailed
from epidote_loadgen.runner.self_watch import PartWatch

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
    num_parts: int


def main(pipe: Connection) -> None:
    """The process's whole life."""
    work = pipe.recv()
    assert isinstance(work, Work)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent hears them and tells us
    sys.setswitchinterval(SWITCH_S)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    outbox = Outbox(pipe)
    last: Done | Failed
    try:
        if work.plan.limits.realtime:
            take_precedence()
        last = Done(work.part, run_fast(_run(work, pipe, outbox)))
    except (InvalidTarget, ValueError) as error:
        last = Failed(work.part, str(error), is_usage=True)
    except PayloadFailed as error:
        last = Failed(work.part, f"a payload could not be made: {error}", is_usage=True)
    except asyncio.CancelledError:
        last = Failed(work.part, "interrupted before the start", is_usage=False)
    except Exception as error:  # told to the parent, which voids the run
        last = Failed(work.part, f"{type(error).__name__}: {error}", is_usage=False)
    outbox.flush()
    with suppress(OSError):  # the parent is gone
        pipe.send(last)


async def _run(work: Work, pipe: Connection, outbox: Outbox) -> PartWatch:
    loop = asyncio.get_running_loop()
    control = PartControl(
        ready=lambda: outbox.put(Ready(work.part)),
        start=loop.create_future(),
        stop=asyncio.Event(),
        abandon=asyncio.Event(),
        glance=outbox.put,
        sends_at=lambda due_s: setattr(outbox, "due_s", due_s),
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
    return await run_part(work.plan, work.part, work.num_parts, control)


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
