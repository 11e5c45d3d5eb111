"""This file is about how many requests with media may be under way before their prefill.

A request holds each of its embeddings from its arrival in the engine until its prompt is computed.
Requests that each hold some and wait for the rest would wait for each other for ever, so a request
enters only when all media of all those inside fit into the pool together. First come, first served;
text never comes here.
"""

import asyncio
from collections import deque
from collections.abc import Iterable

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaSpan


class Seat:
    """One request's place inside."""

    def __init__(self, room: "MediaRoom", needs: dict[str, int]) -> None:
        self._room, self.needs = room, needs

    def leave(self) -> None:
        """The request needs its embeddings no more. Twice is once."""
        if self.needs:
            needs, self.needs = self.needs, {}
            self._room._leave(needs)


class MediaRoom:
    """Rows by key, each key once however many requests share it. Belongs to one loop."""

    def __init__(self, num_rows: int) -> None:
        self._num_rows = num_rows
        self._inside: dict[str, int] = {}  # key: number of requests
        self._num_used = 0
        self._waiting: deque[tuple[asyncio.Future[None], dict[str, int]]] = deque()

    def __len__(self) -> int:
        """Requests that wait, and keys inside: 0 when nothing is at work."""
        return len(self._waiting) + len(self._inside)

    async def enter(self, spans: Iterable[MediaSpan]) -> Seat:
        """Wait for room.

        Raises:
            InvalidRequest: it would not fit into the empty pool.
        """
        needs = {span.key: span.num_tokens for span in spans}
        if sum(needs.values()) > self._num_rows:
            raise InvalidRequest(
                f"the media take {sum(needs.values())} embeddings, "
                f"the encoder cache has {self._num_rows}",
                "messages",
            )
        entered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((entered, needs))
        self._let_in()
        try:
            await entered
        except asyncio.CancelledError:
            if not entered.cancelled():  # let in at the very moment
                self._leave(needs)
            self._let_in()  # who gave up stands in nobody's way
            raise
        return Seat(self, needs)

    def _let_in(self) -> None:
        while self._waiting:
            entered, needs = self._waiting[0]
            if entered.cancelled():
                self._waiting.popleft()
                continue
            more = sum(count for key, count in needs.items() if key not in self._inside)
            if self._num_used + more > self._num_rows:
                return
            self._waiting.popleft()
            self._num_used += more
            for key in needs:
                self._inside[key] = self._inside.get(key, 0) + 1
            entered.set_result(None)

    def _leave(self, needs: dict[str, int]) -> None:
        for key, count in needs.items():
            self._inside[key] -= 1
            if self._inside[key] == 0:
                del self._inside[key]
                self._num_used -= count
        self._let_in()
