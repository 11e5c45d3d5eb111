"""This file is about an engine in a thread of its own, driven from an event loop.

The loop puts commands into an inbox; the thread performs them between steps, in order, and hands
each step's events back in one wake-up of the loop. Nothing to do: it sleeps on the inbox.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from epidote_core.errors import WorkerLost
from epidote_engine.events import Event, KvReady
from epidote_workers.engine_protocol import EngineLike

logger = logging.getLogger(__name__)

T = TypeVar("T")
_Try = Callable[[EngineLike], bool]  # True: done, or nobody waits for it any more


class EngineFailed(WorkerLost):
    """This worker's engine thread has ended: to everybody else the worker is lost."""

    def __init__(self, message: str, *, worker_id: str, is_death: bool = True) -> None:
        super().__init__(message, worker_id=worker_id, is_death=is_death)


class EngineThread:
    """Owns one engine from its making to its end. Public methods belong to the loop."""

    def __init__(
        self,
        make: Callable[[], EngineLike],
        *,
        worker_id: str,
        on_events: Callable[[list[Event]], None],
        on_layers: Callable[[list[KvReady]], None],
        on_failure: Callable[[str], None],
    ) -> None:
        """`make` runs in the thread. The three callbacks run on the loop of `start`."""
        self._make = make
        self._worker_id = worker_id
        self._on_events, self._on_layers, self._on_failure = on_events, on_layers, on_failure
        self._inbox: deque[Callable[[EngineLike], None]] = deque()
        self._waiting: list[_Try] = []  # only the thread touches it
        self._bell = threading.Event()
        self._outbox: deque[tuple[Callable[[Any], None], Any]] = deque()
        self._is_waking = False
        self._stopping = False
        self._failure: str | None = None
        self._busy_since_s: float | None = None
        self._pending: set[asyncio.Future[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="epidote-engine", daemon=True)

    # The loop's side

    async def start(self) -> EngineLike:
        """Make the engine. The result is for reading pools and constants, not for calling.

        Raises:
            Exception: what making it raised.
        """
        self._loop = asyncio.get_running_loop()
        made: asyncio.Future[EngineLike] = self._loop.create_future()
        self._pending.add(made)
        self._made = made
        self._thread.start()
        return await made

    async def stop(self, timeout_s: float = 10.0) -> None:
        """End the thread after the step it is in. Whoever waits gets `EngineFailed`."""
        self._stopping = True
        self._bell.set()
        if self._thread.ident is not None:
            await asyncio.to_thread(self._thread.join, timeout_s)
        self._give_up("the worker stops", is_death=False)

    @property
    def failure(self) -> str | None:
        """Why the thread ended, None while it lives."""
        return self._failure

    @property
    def busy_s(self) -> float:
        """How long the step (or load, or command) under way has taken so far."""
        since_s = self._busy_since_s
        return 0.0 if since_s is None else time.monotonic() - since_s

    def post(self, command: Callable[[EngineLike], object]) -> None:
        """Run `command(engine)` between steps, in order, without an answer.

        It must not raise: that would be a bug in the engine's bookkeeping, and ends the thread.
        """
        self._inbox.append(command)  # type: ignore[arg-type]
        self._bell.set()

    def post_or(
        self, command: Callable[[EngineLike], object], on_error: Callable[[Exception], None]
    ) -> None:
        """Like `post`, but what the command raises goes to `on_error`, on the loop."""

        def perform(engine: EngineLike) -> None:
            try:
                command(engine)
            except Exception as error:
                self._to_loop(on_error, error)

        self.post(perform)

    async def call(self, command: Callable[[EngineLike], T]) -> T:
        """Run `command(engine)` between steps and wait for its result, or what it raised.

        Cancelling does not undo a command that was already put in.

        Raises:
            EngineFailed: the thread has ended.
        """
        future: asyncio.Future[T] = self._future()

        def perform(engine: EngineLike) -> None:
            try:
                result = command(engine)
            except Exception as error:
                self._to_loop(_reject, (future, error))
            else:
                self._to_loop(_resolve, (future, result))

        self.post(perform)
        return await future

    async def until(self, attempt: Callable[[EngineLike], T | None], timeout_s: float) -> T:
        """Try `attempt(engine)` now and after every step until it returns something.

        Cancelled in the moment of success, the result goes nowhere: what it holds must be released
        by the caller, by name.

        Raises:
            TimeoutError: nothing within `timeout_s`; `attempt` is not called after that.
            EngineFailed: the thread has ended.
        """
        future: asyncio.Future[T] = self._future()

        def attempt_once(engine: EngineLike) -> bool:
            if future.done():
                return True
            try:
                result = attempt(engine)
            except Exception as error:
                self._to_loop(_reject, (future, error))
                return True
            if result is None:
                return False
            self._to_loop(_resolve, (future, result))
            return True

        def begin(engine: EngineLike) -> None:
            if not attempt_once(engine):
                self._waiting.append(attempt_once)

        self.post(begin)
        async with asyncio.timeout(timeout_s):
            return await future

    def _future(self) -> "asyncio.Future[Any]":
        if self._failure is not None:
            raise EngineFailed(self._failure, worker_id=self._worker_id)
        future: asyncio.Future[Any] = self._loop.create_future()
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def _give_up(self, reason: str, *, is_death: bool = True) -> None:
        if self._failure is None:
            self._failure = reason
        for future in list(self._pending):
            if not future.done():
                future.set_exception(
                    EngineFailed(reason, worker_id=self._worker_id, is_death=is_death)
                )
                future.exception()  # nobody may be waiting any more

    def _die(self, reason: str) -> None:
        self._give_up(reason)
        self._on_failure(reason)

    # The thread's side

    def _run(self) -> None:
        try:
            self._busy_since_s = time.monotonic()
            engine = self._make()
        except BaseException as error:
            self._busy_since_s = None
            self._to_loop(_reject, (self._made, error))
            self._to_loop(self._give_up, f"the engine could not be made: {type(error).__name__}")
            return
        engine.on_layer = lambda spans: self._to_loop(self._on_layers, spans)
        self._busy_since_s = None
        self._to_loop(_resolve, (self._made, engine))
        try:
            while not self._stopping:
                self._turn(engine)
        except BaseException as error:
            self._busy_since_s = None
            logger.exception("engine thread died")
            reason = f"the engine's thread died: {type(error).__name__}: {error}"
            self._to_loop(self._die, reason)

    def _turn(self, engine: EngineLike) -> None:
        """The commands that wait, then one step; sleeps if there is neither."""
        self._bell.clear()
        self._busy_since_s = time.monotonic()
        for _ in range(len(self._inbox)):
            self._inbox.popleft()(engine)
        has_work = engine.has_work()
        if has_work and (events := engine.step()):
            self._to_loop(self._on_events, events)
        if self._waiting:
            self._waiting = [attempt for attempt in self._waiting if not attempt(engine)]
        self._busy_since_s = None
        if not has_work and not self._inbox and not self._stopping:
            self._bell.wait()

    def _to_loop(self, callback: Callable[[Any], None], value: Any) -> None:
        self._outbox.append((callback, value))
        if not self._is_waking:
            self._is_waking = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:  # the loop is closed: nobody is there to hear it
                self._stopping = True

    def _deliver(self) -> None:
        self._is_waking = False  # first: what is appended from here on wakes the loop again
        while self._outbox:
            callback, value = self._outbox.popleft()
            callback(value)


def _resolve(outcome: "tuple[asyncio.Future[Any], Any]") -> None:
    future, result = outcome
    if not future.done():
        future.set_result(result)


def _reject(outcome: "tuple[asyncio.Future[Any], BaseException]") -> None:
    future, error = outcome
    if not future.done():
        future.set_exception(error)
