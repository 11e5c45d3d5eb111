"""This file is about one process's part of a run: every n-th slot, from start to drained."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from epidote_loadgen.arrivals.closed_loop import ClosedLoop
from epidote_loadgen.client.address import resolve
from epidote_loadgen.client.dispatcher import Dispatcher
from epidote_loadgen.plan import Limits, RunPlan
from epidote_loadgen.records import RequestRecord
from epidote_loadgen.runner.pacing import ClosedPacer, OpenPacer
from epidote_loadgen.runner.precedence import give_precedence
from epidote_loadgen.runner.preparing import Preparer
from epidote_loadgen.runner.self_watch import LagMeter, PartWatch, waited_for_cpu_s

FILL_S = 60.0  # for the first payloads; then the run starts with what there is
LOOK_S = 0.02  # between two looks at whether what is waited for has come
GLANCE_S = 0.5
INTERRUPT_DRAIN_S = 5.0  # for what is open when a person interrupts
INTERRUPTED = "interrupted"  # why a request was cut then


@dataclass(frozen=True, kw_only=True)
class Glance:
    """What a part tells while it runs: records that ended since the last, and where it stands."""

    part: int
    at_s: float
    records: tuple[RequestRecord, ...]
    num_sent: int
    num_in_flight: int
    num_waiting: int
    cpu_utilization: float
    loop_lag_s: float


@dataclass(frozen=True)
class PartControl:
    """How others steer a part. `ready` is called once payloads wait; `start` then gives the start
    on `time.monotonic`; `stop` ends sending, `abandon` the drain too. `sends_at` gets what tells
    when the next send is due, for whatever else the loop does."""

    ready: Callable[[], None]
    start: "asyncio.Future[float]"
    stop: asyncio.Event
    abandon: asyncio.Event
    glance: Callable[[Glance], None]
    sends_at: Callable[[Callable[[], float]], None] = lambda due_s: None


async def run_part(plan: RunPlan, part: int, num_parts: int, control: PartControl) -> PartWatch:
    """Carry out one of the plan's parts; its records leave through `control.glance`.

    Raises:
        InvalidTarget, PayloadFailed
    """
    address = resolve(plan.target)
    limits = share_of(plan.limits, part, num_parts)
    with contextlib.ExitStack() as stack:
        preparer = executor = None
        if isinstance(plan.arrivals, ClosedLoop):
            executor = ThreadPoolExecutor(1, "payloads", give_precedence)
            # Without waiting: a payload that takes long must not hold up the end.
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        else:
            own = itertools.islice(plan.arrivals.slots(), part, None, num_parts)
            preparer = stack.enter_context(Preparer(own, plan.workload))
            await _filled(preparer, control)
        control.ready()
        start_s = await control.start
        reporter = _Reporter(part, start_s, control)
        dispatcher = Dispatcher(
            address,
            limits,
            start_s=start_s,
            finished=reporter.finished,
            id_prefix=f"{plan.config_digest[:8] or 'run'}-{plan.seed}",
        )
        control.sends_at(lambda: dispatcher.due_s)
        pacer: OpenPacer | ClosedPacer
        if preparer is not None:
            pacer = OpenPacer(preparer, dispatcher, start_s=start_s, stop=control.stop)
        else:
            assert isinstance(plan.arrivals, ClosedLoop)
            assert executor is not None
            pacer = ClosedPacer(
                plan.arrivals,
                range(part, plan.arrivals.num_users, num_parts),
                plan.workload,
                dispatcher.submit,
                executor=executor,
                start_s=start_s,
                stop=control.stop,
            )
            reporter.also = pacer.finished
        cpu_s, cpu_wait_s = time.process_time(), waited_for_cpu_s()
        reporter.begin(dispatcher)
        why = "the run ended with an error"
        try:
            await pacer.run()
            why = await _drain(dispatcher, limits, control)
        finally:
            reporter.also = None
            await dispatcher.close(why, is_cut=why == INTERRUPTED)
            reporter.end()
        return PartWatch(
            cpu_s=time.process_time() - cpu_s,
            wall_s=time.monotonic() - start_s,
            lag=reporter.lag.histogram,
            max_in_flight=dispatcher.max_in_flight,
            num_connections=dispatcher.num_connections,
            num_socket_errors=dispatcher.num_socket_errors,
            prepare_waits=pacer.prepare_waits,
            cpu_wait_s=waited_for_cpu_s() - cpu_wait_s,
        )


async def _filled(preparer: Preparer, control: PartControl) -> None:
    """Until the first payloads wait. Raises PayloadFailed; CancelledError: abandoned before."""
    begun_s = time.monotonic()
    while not preparer.is_filled and time.monotonic() - begun_s < FILL_S:
        if control.abandon.is_set():
            raise asyncio.CancelledError
        await asyncio.sleep(LOOK_S)


async def _drain(dispatcher: Dispatcher, limits: Limits, control: PartControl) -> str:
    """Wait for open requests, with patience; why those that are open then are cut off."""
    begun_s = time.monotonic()
    while dispatcher.num_in_flight or dispatcher.num_waiting:
        waited_s = time.monotonic() - begun_s
        if control.abandon.is_set():
            return INTERRUPTED
        if control.stop.is_set() and waited_s > INTERRUPT_DRAIN_S:
            return INTERRUPTED
        if waited_s > limits.drain_s:
            return f"open {limits.drain_s:g} s after the last send"
        await asyncio.sleep(LOOK_S)
    return ""


class _Reporter:
    """Gathers records, and passes them on twice a second."""

    def __init__(self, part: int, start_s: float, control: PartControl) -> None:
        self._part = part
        self._start_s = start_s
        self._glance = control.glance
        self._records: list[RequestRecord] = []
        self._cpu = (time.process_time(), time.monotonic())
        self._task: asyncio.Task[None] | None = None
        self._dispatcher: Dispatcher | None = None
        self.also: Callable[[RequestRecord], None] | None = None
        self.lag = LagMeter()

    def finished(self, record: RequestRecord) -> None:
        self._records.append(record)
        if self.also is not None:
            self.also(record)

    def begin(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._task = asyncio.create_task(self._run())

    def end(self) -> None:
        self.lag.close()
        if self._task is not None:
            self._task.cancel()
        self._tell()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(GLANCE_S)
            self._tell()

    def _tell(self) -> None:
        assert self._dispatcher is not None
        cpu_s, now_s = time.process_time(), time.monotonic()
        last_cpu_s, last_s = self._cpu
        self._cpu = (cpu_s, now_s)
        records, self._records = tuple(self._records), []
        self._glance(
            Glance(
                part=self._part,
                at_s=now_s - self._start_s,
                records=records,
                num_sent=self._dispatcher.num_sent,
                num_in_flight=self._dispatcher.num_in_flight,
                num_waiting=self._dispatcher.num_waiting,
                cpu_utilization=(cpu_s - last_cpu_s) / max(1e-9, now_s - last_s),
                loop_lag_s=self.lag.take_recent_max_s(),
            )
        )


def share_of(limits: Limits, part: int, num_parts: int) -> Limits:
    """One process's share of the whole run's limits; the first processes take the remainder.

    Raises:
        ValueError: a limit leaves nothing for some process.
    """

    def share(name: str, whole: int | None) -> int | None:
        if whole is None:
            return None
        if whole < num_parts:
            raise ValueError(f"{name}: {whole} can't be shared by {num_parts} processes")
        return len(range(part, whole, num_parts))

    return replace(
        limits,
        max_in_flight=share("max_in_flight", limits.max_in_flight),
        max_connections=share("max_connections", limits.max_connections),
    )
