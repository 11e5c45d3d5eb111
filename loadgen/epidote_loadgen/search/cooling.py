"""This file is about letting the service recover between probes: single requests tell when."""

import asyncio
import threading
import time
from dataclasses import replace

from epidote_loadgen.client.address import resolve
from epidote_loadgen.client.dispatcher import Dispatcher
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import RequestRecord, Slot
from epidote_loadgen.runner.fast_loop import run_fast

PAUSE_S = 0.25  # between two single requests
LOOK_S = 0.1  # how late a stop may be noticed
IDLE_SAMPLES = 3
RECOVERED_RATIO = 1.5  # of the idle TTFT, that counts as idle again
RECOVERED_S = 0.02  # so much over it does so too: noise of a fast service


def idle_ttft_s(plan: RunPlan, *, stop: threading.Event) -> float | None:
    """The best TTFT of a few single requests; None: none was answered, or `stop` was set."""
    found = [single_ttft_s(plan, item, stop=stop) for item in range(IDLE_SAMPLES)]
    return min((ttft for ttft in found if ttft is not None), default=None)


def cool_down(
    plan: RunPlan, idle_s: float, *, at_least_s: float, at_most_s: float, stop: threading.Event
) -> float:
    """Wait until a single request is served as an idle service does, or `stop` is set; the seconds
    it took."""
    begun_s = time.monotonic()
    enough_s = max(RECOVERED_RATIO * idle_s, idle_s + RECOVERED_S)
    stop.wait(min(at_least_s, at_most_s))
    item = IDLE_SAMPLES
    while time.monotonic() - begun_s < at_most_s and not stop.is_set():
        ttft_s = single_ttft_s(plan, item, stop=stop)
        if ttft_s is not None and ttft_s <= enough_s:
            break
        item += 1
        stop.wait(PAUSE_S)
    return time.monotonic() - begun_s


def single_ttft_s(plan: RunPlan, item: int, *, stop: threading.Event) -> float | None:
    """The TTFT of one request of the plan's first class, on a connection of its own; None: it was
    not answered, or `stop` was set before."""
    name = next(iter(plan.arrivals.slots())).class_name  # type: ignore[union-attr]
    planned = plan.workload.request(
        Slot(index=item, intended_send_s=None, class_name=name, item=item)
    )

    async def ask() -> RequestRecord:
        done: asyncio.Future[RequestRecord] = asyncio.get_running_loop().create_future()
        start_s = time.monotonic()
        dispatcher = Dispatcher(
            resolve(plan.target),
            replace(plan.limits, max_in_flight=None, max_connections=None),
            start_s=start_s,
            finished=done.set_result,
            id_prefix="idle",
        )
        dispatcher.submit(planned, time.monotonic() - start_s)
        while not done.done() and not stop.is_set():
            await asyncio.wait([done], timeout=LOOK_S)
        await dispatcher.close("done")
        return await done

    record = run_fast(ask())
    if record.ttft_s is None or not record.ok:
        return None
    return record.ttft_s - record.connect_s
