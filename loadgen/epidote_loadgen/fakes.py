"""This file is about trying the generator itself: the simplest workloads, and a client alone."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from epidote_loadgen.client.address import resolve
from epidote_loadgen.client.dispatcher import Dispatcher
from epidote_loadgen.mock_server.server import MockServer, MockSettings, serving
from epidote_loadgen.plan import Limits, Target
from epidote_loadgen.records import PlannedRequest, RequestRecord, Slot

THREAD_S = 60.0  # for a thread to begin or to end
BODY = json.dumps(
    {
        "model": "mock",
        "messages": [{"role": "user", "content": "Say something."}],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
).encode()


@dataclass(frozen=True, kw_only=True)
class SameRequest:
    """Every request is the same one."""

    body: bytes = BODY

    def request(self, slot: Slot) -> PlannedRequest:
        return PlannedRequest(slot=slot, body=self.body)


@dataclass(frozen=True, kw_only=True)
class BrokenWorkload:
    """Can't make the request of one item."""

    broken_item: int = 0

    def request(self, slot: Slot) -> PlannedRequest:
        if slot.item >= self.broken_item:
            raise ValueError(f"no picture for item {slot.item}")
        return PlannedRequest(slot=slot, body=BODY)


@dataclass(frozen=True, kw_only=True)
class StuckWorkload:
    """Never comes back from making the request of `stuck_item` or a later one.

    `deaf`: in one call into C that holds the interpreter, so that no thread of the process runs.
    """

    stuck_item: int = 0
    deaf: bool = False

    def request(self, slot: Slot) -> PlannedRequest:
        if slot.item >= self.stuck_item:
            if self.deaf:
                sum(range(1 << 60))
            time.sleep(3600.0)
        return PlannedRequest(slot=slot, body=BODY)


@contextlib.contextmanager
def mock_thread(settings: MockSettings) -> Iterator[tuple[str, MockServer]]:
    """A mock server in a thread of this process: its URL, and itself to look into."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    up = threading.Event()
    found: list[tuple[str, MockServer]] = []

    async def main() -> None:
        async with serving(settings) as (server, url):
            found.append((url, server))
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert up.wait(THREAD_S)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(THREAD_S)
        loop.close()


class RecordingClient:
    """A dispatcher and what it recorded."""

    def __init__(self, target: Target, limits: Limits) -> None:
        self.records: list[RequestRecord] = []
        self._start_s = time.monotonic()
        self._changed = asyncio.Event()
        self.dispatcher = Dispatcher(
            resolve(target), limits, start_s=self._start_s, finished=self._finished
        )

    def _finished(self, record: RequestRecord) -> None:
        self.records.append(record)
        self._changed.set()

    def send(self, *requests: PlannedRequest) -> None:
        for request in requests:
            self.dispatcher.submit(request, time.monotonic() - self._start_s)

    async def ended(self, count: int) -> list[RequestRecord]:
        async with asyncio.timeout(60.0):
            while len(self.records) < count:
                self._changed.clear()
                await self._changed.wait()
        return sorted(self.records, key=lambda record: record.index)
