"""This file is about handing an engine's events to whoever works on the request."""

import asyncio
from collections import deque

from epidote_core.errors import EpidoteError
from epidote_engine.events import Event, KvReady, MediaFailed, MediaReady

Item = Event | KvReady


class Inbox:
    """Events of one request, for one reader, until it is closed."""

    def __init__(self) -> None:
        self._items: deque[Item] = deque()
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    def push(self, item: Item) -> None:
        self._items.append(item)
        self._wake()

    def fail(self, error: Exception) -> None:
        """Let the reader raise `error` after what is here already. The first error stays."""
        if self._error is None:
            self._error = error
        self._wake()

    async def take(self, timeout_s: float) -> list[Item]:
        """Everything that waits, at least one.

        Raises:
            TimeoutError: nothing within `timeout_s`.
            Exception: what `fail` was given.
        """
        if not self._items and self._error is None:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._waiter
            finally:
                self._waiter = None
        if self._items:
            items = list(self._items)
            self._items.clear()
            return items
        assert self._error is not None
        raise self._error

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Inboxes:
    """The open inboxes by the engine's request id."""

    def __init__(self) -> None:
        self._open: dict[str, Inbox] = {}
        self._failure: Exception | None = None

    def __len__(self) -> int:
        return len(self._open)

    def open(self, request_id: str) -> Inbox:
        assert request_id not in self._open, "engine request ids are unique"
        inbox = self._open[request_id] = Inbox()
        if self._failure is not None:
            inbox.fail(self._failure)
        return inbox

    def close(self, request_id: str) -> None:
        """Later events of the request are dropped."""
        del self._open[request_id]

    def deliver(self, items: list[Event] | list[KvReady]) -> list[MediaReady | MediaFailed]:
        """Sort events by request; returns those that belong to media."""
        about_media: list[MediaReady | MediaFailed] = []
        for item in items:
            if isinstance(item, MediaReady | MediaFailed):
                about_media.append(item)
            elif (inbox := self._open.get(item.request_id)) is not None:
                inbox.push(item)
        return about_media

    def fail_all(self, error: EpidoteError) -> None:
        """Every open inbox, and those opened from now on, end with `error`."""
        self._failure = error
        for inbox in self._open.values():
            inbox.fail(error)
