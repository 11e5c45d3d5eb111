"""This file is about a whole run: its processes started, watched, stopped, and their parts joined.

All measuring happens in child processes, so that drawing a live view or watching an autoscaler
here never delays a send.
"""

import asyncio
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait

from epidote_loadgen.client.address import resolve
from epidote_loadgen.client.connector import CannotConnect, connect
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress, RequestRecord, RunResult, Watcher
from epidote_loadgen.runner.child import Command, Done, Failed, Ready, Start, Work
from epidote_loadgen.runner.how_many import how_many
from epidote_loadgen.runner.launching import Launcher, LocalLauncher, Part
from epidote_loadgen.runner.part import INTERRUPT_DRAIN_S, Glance, share_of
from epidote_loadgen.runner.progress import ProgressMeter
from epidote_loadgen.runner.self_watch import PartWatch, join_watches, void_reason
from epidote_loadgen.runner.watching import WatcherThread

POLL_S = 0.25
READY_S = 120.0  # for all processes to have their first payloads
GOODBYE_S = 5.0  # for a process that is done to end
# How long a process that was told to end may take. One that is busy in a call that never looks up
# (a picture of a hundred megapixels) is killed then; what it had reported is kept.
STOP_S = INTERRUPT_DRAIN_S + 5.0
ABANDON_S = 3.0
SILENCE_S = 1.0  # one that still tells its records is let finish …
MOST_TELLING_S = 30.0  # … for so long


class TargetUnreachable(Exception):
    """Nobody answers where the target should be; nothing was sent."""


class RunFailed(Exception):
    """The run could not be carried out, and measured nothing. `is_usage`: the plan is wrong."""

    def __init__(self, message: str, *, is_usage: bool = False) -> None:
        super().__init__(message)
        self.is_usage = is_usage


@dataclass(frozen=True)
class Interrupt:
    """Set from a signal handler: `stop` ends sending and waits a little, `abandon` waits for
    nothing. `outer` set means both: a search drops the probe that it is in."""

    stop: threading.Event = field(default_factory=threading.Event)
    abandon: threading.Event = field(default_factory=threading.Event)
    outer: threading.Event = field(default_factory=threading.Event)

    @property
    def wants_stop(self) -> bool:
        return self.stop.is_set() or self.outer.is_set()

    @property
    def wants_abandon(self) -> bool:
        return self.abandon.is_set() or self.outer.is_set()


def run(
    plan: RunPlan,
    *,
    on_progress: Callable[[Progress], None] = lambda progress: None,
    watcher: Watcher | None = None,
    interrupt: Interrupt | None = None,
    launcher: Launcher | None = None,
) -> RunResult:
    """Carry out the plan. What was measured is kept, whatever ends the run.

    `launcher` decides where the processes run; None: here.

    Raises:
        TargetUnreachable: before anything was sent.
        RunFailed: the plan can't be carried out, or no process got as far as sending.
        InvalidTarget, ValueError: the plan's target or limits can't work.
    """
    address = resolve(plan.target)
    launcher = launcher or LocalLauncher()
    num_parts = how_many(plan, num_cores=launcher.num_cores())
    for part in range(num_parts):
        share_of(plan.limits, part, num_parts)
    try:
        asyncio.run(connect(address, asyncio.Protocol, timeout_s=plan.limits.connect_timeout_s))
    except CannotConnect as error:
        raise TargetUnreachable(f"{plan.target.url}: {error}") from error
    return _Run(
        plan, num_parts, on_progress, watcher, interrupt or Interrupt(), launcher
    ).carry_out()


class _Run:
    def __init__(
        self,
        plan: RunPlan,
        num_parts: int,
        on_progress: Callable[[Progress], None],
        watcher: Watcher | None,
        interrupt: Interrupt,
        launcher: Launcher,
    ) -> None:
        self._plan = plan
        self._num_parts = num_parts
        self._launcher = launcher
        self._on_progress = on_progress
        self._interrupt = interrupt
        self._watcher = WatcherThread(watcher) if watcher is not None else None
        self._records: list[RequestRecord] = []
        self._watches: list[PartWatch] = []
        self._failures: list[Failed] = []
        self._waiting_for: set[int] = set()  # parts that are not ready
        self._pipes: dict[Connection, int] = {}
        self._parts: list[Part] = []
        self._meter = ProgressMeter(plan)
        self._told_stop = self._told_abandon = False
        self._end_by_s = math.inf  # of processes that were told to
        self._heard_s = 0.0
        self._start_s: float | None = None
        self._started_at_unix_s = self._duration_s = 0.0

    def carry_out(self) -> RunResult:
        try:
            self._spawn()
            deadline_s = time.monotonic() + READY_S
            while self._pipes:
                self._receive()
                self._obey_interrupt()
                if self._can_start():
                    self._start()
                if self._start_s is None and time.monotonic() > deadline_s:
                    raise RunFailed(f"the first payloads were not made within {READY_S:g} s")
                if self._failures:
                    self._abandon()
                self._give_up_on_the_stuck()
                if self._start_s is not None:
                    progress = self._meter.progress()
                    if progress is not None:
                        self._on_progress(progress)
            if self._start_s is not None:
                self._duration_s = time.monotonic() - self._start_s
        finally:
            self._end_processes()
            watched = self._watcher.close() if self._watcher is not None else {}
        if self._told_stop and self._start_s is None:
            raise RunFailed("interrupted before the start: nothing was measured")
        if self._failures and not self._records:
            first = self._failures[0]
            raise RunFailed(first.message, is_usage=first.is_usage)
        watch = join_watches(self._watches, self._records)
        self._records.sort(key=lambda record: record.index)
        void = void_reason(watch, self._plan.limits, len(self._records))
        if self._failures:
            void = self._failures[0].message
        return RunResult(
            config_digest=self._plan.config_digest,
            config=self._plan.config,
            seed=self._plan.seed,
            started_at_unix_s=self._started_at_unix_s,
            duration_s=self._duration_s,
            records=tuple(self._records),
            self_watch=watch,
            void_reason=void,
            interrupted=self._told_stop,
            watch=watched,
        )

    def _spawn(self) -> None:
        for number in range(self._num_parts):
            part = self._launcher.launch(Work(self._plan, number, self._num_parts))
            self._parts.append(part)
            self._pipes[part.pipe] = number
            self._waiting_for.add(number)

    def _can_start(self) -> bool:
        is_held = self._waiting_for or self._failures or self._told_stop
        return self._start_s is None and not is_held

    def _start(self) -> None:
        lead_s = self._launcher.lead_s
        self._start_s = time.monotonic() + lead_s
        self._started_at_unix_s = time.time() + lead_s
        self._meter.start(self._start_s)
        self._tell(Start(self._start_s))
        if self._watcher is not None:
            self._watcher.start(self._start_s)

    def _receive(self) -> None:
        for pipe in wait(list(self._pipes), POLL_S):
            assert isinstance(pipe, Connection)
            part = self._pipes[pipe]
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                self._pipes.pop(pipe)
                died = f"process {part} of the load generator died within the run"
                self._failures.append(Failed(part, died, is_usage=False))
                continue
            self._heard_s = time.monotonic()
            match message:
                case Ready():
                    self._waiting_for.discard(part)
                case Glance():
                    self._records.extend(message.records)
                    self._meter.add(message)
                case Done():
                    self._watches.append(message.watch)
                    self._pipes.pop(pipe)
                case Failed():
                    self._failures.append(message)
                    self._pipes.pop(pipe)

    def _obey_interrupt(self) -> None:
        if (self._interrupt.wants_stop or self._is_out_of_time()) and not self._told_stop:
            self._told_stop = True
            if self._start_s is None:
                self._abandon()
            else:
                self._end_by_s = time.monotonic() + STOP_S
                self._tell(Command.STOP)
        if self._interrupt.wants_abandon:
            self._abandon()

    def _is_out_of_time(self) -> bool:
        timeout_s = self._plan.limits.run_timeout_s
        if timeout_s is None or self._start_s is None:
            return False
        return time.monotonic() > self._start_s + timeout_s

    def _abandon(self) -> None:
        if not self._told_abandon:
            self._told_abandon = True
            self._end_by_s = min(self._end_by_s, time.monotonic() + ABANDON_S)
            self._tell(Command.ABANDON)

    def _give_up_on_the_stuck(self) -> None:
        """Processes that were told to end and did not are left; a moment later they are killed."""
        now_s = time.monotonic()
        is_telling = now_s < min(self._heard_s + SILENCE_S, self._end_by_s + MOST_TELLING_S)
        if now_s <= self._end_by_s or is_telling:
            return
        for pipe in list(self._pipes):
            part = self._pipes.pop(pipe)
            why = f"process {part} of the load generator did not end when told, and was killed"
            self._failures.append(Failed(part, why, is_usage=False))

    def _tell(self, message: object) -> None:
        for pipe in self._pipes:
            with suppress(OSError):  # it died: `_receive` notices
                pipe.send(message)

    def _end_processes(self) -> None:
        self._tell(Command.ABANDON)
        is_stuck = bool(self._pipes) or time.monotonic() > self._end_by_s
        deadline_s = time.monotonic() + (0.0 if is_stuck else GOODBYE_S)
        for part in self._parts:
            part.end(deadline_s=deadline_s)
