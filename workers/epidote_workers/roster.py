"""This file is about the list of workers itself: who is there, since when silent, what changed."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from epidote_core.roles import WorkerState
from epidote_core.worker_view import WorkerView

LOST_AFTER_S = 5.0  # a worker's heart beats every 0.5 s in a thread of its own
STARTING_LOST_AFTER_S = 60.0  # loading weights may hold the interpreter for long


class Roster:
    """Views by worker, with a version that grows with every change but that of a load."""

    def __init__(self, now: Callable[[], float], first_version: int) -> None:
        self._now = now
        self._views: dict[str, WorkerView] = {}
        self._seen_s: dict[str, float] = {}
        self._leaving: set[str] = set()
        self._changed = asyncio.Event()
        self.version = first_version

    def get(self, worker_id: str) -> WorkerView | None:
        return self._views.get(worker_id)

    def all(self) -> tuple[WorkerView, ...]:
        return tuple(self._views.values())

    def staying(self) -> list[WorkerView]:
        """Everybody who has not said goodbye."""
        return [view for view in self._views.values() if view.worker_id not in self._leaving]

    def put(self, view: WorkerView) -> None:
        """Add or renew a worker, which is thereby seen alive. One that drains goes on draining."""
        before = self._views.get(view.worker_id)
        if (
            before is not None
            and before.state is WorkerState.DRAINING
            and view.worker_id in self._leaving
        ):
            view = replace(view, state=WorkerState.DRAINING)
        self._seen_s[view.worker_id] = self._now()
        self._views[view.worker_id] = view
        if before is None or replace(before, load=view.load) != view:
            self.bump()

    def say_goodbye(self, worker_id: str) -> bool:
        """The worker is about to stop; False: it is not known."""
        if worker_id in self._views:
            self._leaving.add(worker_id)
        return worker_id in self._views

    def drain(self, worker_id: str) -> None:
        """No more work for a worker that said goodbye."""
        if view := self._views.get(worker_id):
            self.put(replace(view, state=WorkerState.DRAINING))

    def remove(self, worker_id: str) -> bool:
        """Forget a worker; False: it was not known."""
        known = self._views.pop(worker_id, None) is not None
        self._seen_s.pop(worker_id, None)
        self._leaving.discard(worker_id)
        if known:
            self.bump()
        return known

    def silent(self) -> list[str]:
        """Workers whose hearts have stopped beating."""
        return [
            worker_id
            for worker_id, view in self._views.items()
            if self._now() - self._seen_s[worker_id]
            > (STARTING_LOST_AFTER_S if view.state is WorkerState.STARTING else LOST_AFTER_S)
        ]

    def bump(self) -> None:
        """Something changed that watchers want to know."""
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def differs_from(self, version: int, timeout_s: float) -> None:
        """Return once the version differs, or after `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                while self.version == version:
                    await self._changed.wait()
        except TimeoutError:
            return

    async def started(self, worker_id: str, timeout_s: float) -> WorkerView | None:
        """The worker's view once it is past starting; None if it is gone."""
        try:
            async with asyncio.timeout(timeout_s):
                while (view := self._views.get(worker_id)) is not None:
                    if view.state is not WorkerState.STARTING:
                        return view
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._views.get(worker_id)
