"""This file is about equal questions at the same time: one is answered, all listen.

The answer is computed by a task of its own, so that the first client's leaving does not end it for
the others; when nobody listens any more it is cancelled on every stage.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing

from epidote_core.generation import TokenChunk

Item = list[TokenChunk]


class Flight:
    """One answer under way, and what it has said so far."""

    def __init__(self) -> None:
        self.items: list[Item] = []
        self.error: BaseException | None = None
        self.is_done = False
        self.num_listeners = 0
        self.task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def run(self, upstream: AsyncGenerator[Item, None]) -> None:
        try:
            async with aclosing(upstream) as stream:
                async for item in stream:
                    self.items.append(item)
                    self._tell()
        except BaseException as error:
            self.error = error
            if not isinstance(error, Exception):
                raise
        finally:
            self.is_done = True
            self._tell()

    async def listen(self) -> AsyncGenerator[Item, None]:
        """Everything from the beginning; raises what the answer raised."""
        place = 0
        while True:
            while place < len(self.items):
                yield self.items[place]
                place += 1
            if self.is_done:
                if isinstance(self.error, Exception):
                    raise self.error
                if self.error is not None:
                    raise RuntimeError("the shared answer was cancelled") from self.error
                return
            await self._news.wait()


class Flights:
    """Answers under way, by what they answer."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, Flight] = {}

    def __len__(self) -> int:
        return len(self._by_key)

    def is_under_way(self, key: Hashable) -> bool:
        return key in self._by_key

    async def stream(
        self, key: Hashable, start: Callable[[], AsyncGenerator[Item, None]]
    ) -> AsyncGenerator[Item, None]:
        """The answer for `key`: listened to if under way, else begun with `start()`."""
        flight = self._by_key.get(key)
        if flight is None:
            flight = self._by_key[key] = Flight()
            flight.task = asyncio.create_task(flight.run(start()))
            flight.task.add_done_callback(lambda task: self._landed(key, flight))
        flight.num_listeners += 1
        try:
            async with aclosing(flight.listen()) as items:
                async for item in items:
                    yield item
        finally:
            flight.num_listeners -= 1
            if not flight.num_listeners:
                self._landed(key, flight)
                await _end(flight.task)

    def _landed(self, key: Hashable, flight: Flight) -> None:
        if self._by_key.get(key) is flight:
            del self._by_key[key]


async def _end(task: asyncio.Task[None] | None) -> None:
    """Cancel, and wait until every stage has been told."""
    if task is not None and not task.done():
        task.cancel()
        await asyncio.wait([task])
