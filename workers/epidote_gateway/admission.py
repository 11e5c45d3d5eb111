"""This file is about how many requests are served at once, and who waits or is sent away."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from epidote_gateway.api_errors import overloaded
from epidote_gateway.metrics import Metrics
from epidote_gateway.settings import GatewaySettings


class Admission:
    """First come, first served. For one event loop."""

    def __init__(
        self, settings: GatewaySettings, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        self._settings = settings
        self._metrics = metrics
        self._clock = clock
        self._num_admitted = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    def check_room(self) -> None:
        """Refuse at once what `slot` would refuse now.

        Raises:
            ApiError: 429, the queue is full.
        """
        is_free = self._num_admitted < self._settings.max_concurrency and not self._waiting
        if not is_free and len(self._waiting) >= self._settings.max_queue:
            raise overloaded("too many requests are waiting", self._settings.retry_after_s)

    @asynccontextmanager
    async def slot(self) -> AsyncGenerator[float, None]:
        """Hold one of `max_concurrency` slots; gives the seconds that it took to get it.

        Raises:
            ApiError: 429, the queue is full or the wait took longer than `queue_timeout_s`.
        """
        waited_s = 0.0
        if self._num_admitted < self._settings.max_concurrency and not self._waiting:
            self._num_admitted += 1
        else:
            waited_s = await self._wait()
        self._metrics.in_flight.set(self._num_admitted)
        self._metrics.admission.of().observe(waited_s)
        try:
            yield waited_s
        finally:
            self._leave()

    async def _wait(self) -> float:
        self.check_room()
        started_s = self._clock()
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        self._metrics.queued.set(len(self._waiting))
        try:
            async with asyncio.timeout(self._settings.queue_timeout_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self._leave()  # the slot came just when we gave up
            elif turn in self._waiting:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise overloaded(
                    f"waited {self._settings.queue_timeout_s:g} s for a slot",
                    self._settings.retry_after_s,
                ) from error
            raise
        finally:
            self._metrics.queued.set(len(self._waiting))
        return self._clock() - started_s

    def _leave(self) -> None:
        """Hand the slot to whoever waits longest, or free it."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        else:
            self._num_admitted -= 1
        self._metrics.in_flight.set(self._num_admitted)
        self._metrics.queued.set(len(self._waiting))
