"""This file is about doing once what several ask for at the same time."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Share(Generic[T]):
    """One party's part in some work: `wait` for it, then `leave`, in any case."""

    def __init__(self, task: "asyncio.Task[T]", parties: "set[Share[T]]") -> None:
        self._task, self._parties = task, parties
        parties.add(self)

    async def wait(self) -> T:
        """The result, or what the work raised. Cancelling stops the waiting only."""
        return await asyncio.shield(self._task)

    def leave(self) -> None:
        """The last one to leave unfinished work cancels it."""
        self._parties.discard(self)
        if not self._parties and not self._task.done():
            self._task.cancel()


class SharedWork(Generic[T]):
    """Work under way by key."""

    def __init__(self) -> None:
        self._running: dict[str, tuple[asyncio.Task[T], set[Share[T]]]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._running

    def __len__(self) -> int:
        return len(self._running)

    def start(self, key: str, work: Callable[[], Coroutine[Any, Any, T]]) -> Share[T]:
        """Begin work that is not under way."""
        assert key not in self._running, "ask first"
        task = asyncio.create_task(work())
        self._running[key] = (task, set())
        task.add_done_callback(lambda _: self._end(key))
        return self.join(key)

    def _end(self, key: str) -> None:
        task, parties = self._running.pop(key)
        if not parties and not task.cancelled():
            task.exception()  # everybody left: nobody is there to hear of it

    def join(self, key: str) -> Share[T]:
        """Take part in work under way; not after everybody left it (see `settled`)."""
        task, parties = self._running[key]
        return Share(task, parties)

    async def settled(self, keys: Iterable[str]) -> None:
        """Wait until none of `keys` is work that everybody left and that still cleans up."""
        for key in keys:
            while key in self._running and not self._running[key][1]:
                await asyncio.wait([self._running[key][0]])
