"""This file is about telling whoever listens how a worker is: its state at once, its load often."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, replace

from epidote_core.worker_view import ExpertsView, WorkerLoad
from epidote_engine.events import CacheChanges
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.engine_thread import EngineThread
from epidote_workers.expert_seats import ExpertSeats
from epidote_workers.lifecycle import Life
from epidote_workers.messages import Nothing, StatusReport

EXPERTS_EVERY_S = 5.0  # counting waits for the device, and a table has thousands of numbers
MOVES_EVERY_S = 0.5  # where experts lie, while they move
_Table = tuple[tuple[int, ...], ...]


@dataclass(eq=False)
class _Listener:
    """What one listener has not been told yet. A slow one gets changes summed up."""

    bell: asyncio.Event = field(default_factory=asyncio.Event)
    is_whole: bool = True
    blocks_added: set[bytes] = field(default_factory=set)
    blocks_removed: set[bytes] = field(default_factory=set)
    media_added: set[str] = field(default_factory=set)
    media_removed: set[str] = field(default_factory=set)
    wants_experts: bool = True  # the last table is new to it
    wants_seats: bool = True  # and where they lie

    def note(self, changes: CacheChanges) -> None:
        self.blocks_removed = (self.blocks_removed - changes.blocks_added) | changes.blocks_removed
        self.blocks_added = (self.blocks_added - changes.blocks_removed) | changes.blocks_added
        self.media_removed = (self.media_removed - changes.media_added) | changes.media_removed
        self.media_added = (self.media_added - changes.media_removed) | changes.media_added


class StatusBoard:
    """The worker's public face. Belongs to the loop."""

    def __init__(
        self,
        blank: StatusReport,
        seats: ExpertSeats,
        *,
        life: Callable[[], Life],
        adjust: Callable[[WorkerLoad], WorkerLoad],
    ) -> None:
        """`blank` has what never changes; `adjust` adds what the engine can't know to its load."""
        self._blank, self._life, self._adjust, self._seats = blank, life, adjust, seats
        self.load = WorkerLoad()
        self.blocks: set[bytes] = set()
        self.media: set[str] = set()
        self._experts: tuple[tuple[int, ...], ...] = ()
        self._next_experts_s = self._next_seats_s = 0.0
        self._experts_view: ExpertsView | None = None
        self._listeners: set[_Listener] = set()

    def report(self) -> StatusReport:
        """The worker now, without cache names."""
        life = self._life()
        return replace(
            self._blank, role=life.role, state=life.state, epoch=life.epoch, load=self.load
        )

    def publish(self) -> None:
        """Something changed that nobody should wait for."""
        for listener in self._listeners:
            listener.bell.set()

    async def refresh(self, engine: EngineThread) -> None:
        """Ask the engine for its load and what its caches gained and lost; tell everybody."""

        seats, now_s = self._seats, time.monotonic()
        counts = now_s >= self._next_experts_s
        looks = counts or (seats.is_moving and now_s >= self._next_seats_s)

        def look(
            engine: EngineLike,
        ) -> tuple[WorkerLoad, CacheChanges, _Table | None, ExpertsView | None]:
            tokens = engine.expert_tokens() if counts else None
            placed = seats.look(engine) if looks else None
            return engine.load(), engine.take_cache_changes(), tokens, placed

        load, changes, experts, placed = await engine.call(look)
        if counts:
            self._next_experts_s = time.monotonic() + EXPERTS_EVERY_S
        if looks:
            self._next_seats_s = time.monotonic() + MOVES_EVERY_S
        if experts is not None and experts != self._experts:
            self._experts = experts
            for listener in self._listeners:
                listener.wants_experts = True
        if placed is not None and placed != self._experts_view:
            self._experts_view = placed
            for listener in self._listeners:
                listener.wants_seats = True
        self.load = self._adjust(load)
        self.blocks = (self.blocks - changes.blocks_removed) | changes.blocks_added
        self.media = (self.media - changes.media_removed) | changes.media_added
        for listener in self._listeners:
            listener.note(changes)
        self.publish()

    async def status(self, _: Nothing) -> AsyncGenerator[StatusReport, None]:
        """A whole report, then one per refresh or change of state."""
        listener = _Listener()
        self._listeners.add(listener)
        try:
            while True:
                yield self._next(listener)
                await listener.bell.wait()
                listener.bell.clear()
        finally:
            self._listeners.discard(listener)

    def _next(self, listener: _Listener) -> StatusReport:
        whole = listener.is_whole
        report = replace(
            self.report(),
            is_whole=whole,
            blocks_added=frozenset(self.blocks if whole else listener.blocks_added),
            blocks_removed=frozenset() if whole else frozenset(listener.blocks_removed),
            media_added=frozenset(self.media if whole else listener.media_added),
            media_removed=frozenset() if whole else frozenset(listener.media_removed),
            expert_tokens=self._experts if listener.wants_experts else (),
            experts=self._experts_view if listener.wants_seats else None,
        )
        listener.is_whole = listener.wants_experts = listener.wants_seats = False
        for told in (
            listener.blocks_added,
            listener.blocks_removed,
            listener.media_added,
            listener.media_removed,
        ):
            told.clear()
        return report
