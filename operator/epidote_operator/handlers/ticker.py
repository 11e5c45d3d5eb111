"""This file is about when services tick: each at its own pace, never twice at once, if we lead."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.kube.api import Manifest
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.kube.leader import LeaderElection
from epidote_operator.reconcile import Reconciler
from epidote_operator.service_state import ServiceState

logger = logging.getLogger(__name__)

LOOK_S = 0.25
TICK_TIMEOUT_S = 60.0  # longer than any deadline of the calls in it
FIRST_BACKOFF_S, LAST_BACKOFF_S = 1.0, 60.0
LASTING_FAILURE = 5  # in a row: half a minute
TOLD_FAILURE = 2  # in a row: one may be a conflict, and is over before anybody has read of it
TELL_TIMEOUT_S = 10.0
TIDY_S, TIDY_TIMEOUT_S = 3.0, 30.0
MAX_AT_ONCE = 16  # ticks wait for networks, not for this process
DEFAULT_TICK_S = 10.0

Key = tuple[str, str]


@dataclass
class _Entry:
    state: ServiceState = field(default_factory=ServiceState)
    due_s: float = float("-inf")
    generation: int | None = None
    num_failures: int = 0
    untold: str = ""  # that ticks fail, and why it can't be told in the status: no right to
    is_caught_up: bool = False
    task: "asyncio.Task[None] | None" = None


@dataclass
class Ticker:
    """Ticks the services that `services()` lists. `clock` is Unix time."""

    reconciler: Reconciler
    services: Callable[[], Iterable[tuple[Key, Manifest]]]
    leader: LeaderElection | None
    clock: Callable[[], float]
    is_caught_up: Callable[[Key], Awaitable[bool]]  # asked before a service's first tick
    tick_s: float = 0.0  # instead of the services' own, if > 0
    turn: Callable[[], None] = lambda: None  # called each time the loop comes round
    tidy: Callable[[], Awaitable[None]] | None = None  # what is nobody's tick, every `TIDY_S`
    _tidied_s: float = float("-inf")
    _entries: dict[Key, _Entry] = field(default_factory=dict)

    @property
    def is_active(self) -> bool:
        return self.leader is None or self.leader.is_leader

    @property
    def trouble(self) -> str:
        """Why no service is looked after, nor can be told of it; "": at least one is, or may be."""
        untold = [entry.untold for entry in self._entries.values()]
        return untold[0] if untold and all(untold) else ""

    async def run(self) -> None:
        """Until cancelled. A leader no more drops what it does, and what it knows: it may be old
        when it leads again."""
        limit = asyncio.Semaphore(MAX_AT_ONCE)
        try:
            while True:
                self.turn()
                self.reconciler.metrics.leads.set(self.is_active)
                if self.is_active:
                    await self._look(limit)
                    await self._tidy()
                else:
                    await self._drop(list(self._entries))
                await asyncio.sleep(LOOK_S)
        finally:
            await self._drop(list(self._entries))

    async def _look(self, limit: asyncio.Semaphore) -> None:
        now_s = self.clock()
        listed = dict(self.services())
        await self._drop([key for key in self._entries if key not in listed])
        for key, resource in listed.items():
            if "deletionTimestamp" in resource["metadata"]:
                continue
            entry = self._entries.setdefault(key, _Entry())
            changed = resource["metadata"].get("generation") != entry.generation
            if entry.task is None and (now_s >= entry.due_s or changed):
                entry.generation = resource["metadata"].get("generation")
                entry.task = asyncio.create_task(self._tick(key, resource, entry, limit))

    async def _tidy(self) -> None:
        if self.tidy is None or self.clock() < self._tidied_s + TIDY_S:
            return
        self._tidied_s = self.clock()
        try:
            async with asyncio.timeout(TIDY_TIMEOUT_S):
                await self.tidy()
        except (EpidoteError, TimeoutError) as error:  # the next time tries again
            logger.warning("not tidied up", extra={"error": repr(error)})

    async def _drop(self, keys: Iterable[Key]) -> None:
        """End what is under way for these services, and forget them."""
        for key in keys:
            entry = self._entries.pop(key)
            if (task := entry.task) is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            await entry.state.aclose()
            self.reconciler.metrics.forget(*key)

    async def _tick(
        self, key: Key, resource: Manifest, entry: _Entry, limit: asyncio.Semaphore
    ) -> None:
        metrics = self.reconciler.metrics
        try:
            async with limit, asyncio.timeout(TICK_TIMEOUT_S):
                if not self.is_active:
                    return
                entry.is_caught_up = entry.is_caught_up or await self.is_caught_up(key)
                if not entry.is_caught_up:
                    entry.due_s = self.clock() + LOOK_S
                    return
                with metrics.tick_seconds.time():
                    await self.reconciler.reconcile(resource, entry.state, self.clock())
            entry.num_failures, entry.untold = 0, ""
            entry.due_s = self.clock() + self._pace_s(resource)
        except Exception as error:  # one service's trouble must not stop the others
            entry.num_failures += 1
            wait_s = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2 ** (entry.num_failures - 1))
            entry.due_s = self.clock() + wait_s
            metrics.failures.labels(*key).inc()
            level = logging.WARNING if _is_expected(error) else logging.ERROR
            logger.log(
                level,
                "tick failed",
                exc_info=None if _is_expected(error) else error,
                extra={"service": "/".join(key), "error": repr(error), "retry_s": wait_s},
            )
            if entry.num_failures >= TOLD_FAILURE:
                await self._tell_failure(key, resource, entry, error)
        finally:
            entry.task = None

    async def _tell_failure(
        self, key: Key, resource: Manifest, entry: _Entry, error: Exception
    ) -> None:
        teller = self.reconciler.teller
        try:
            async with asyncio.timeout(TELL_TIMEOUT_S):
                await teller.failure(
                    resource,
                    entry.state,
                    error,
                    self.clock(),
                    is_lasting=entry.num_failures >= LASTING_FAILURE,
                )
            entry.untold = ""
        except Exception as untold:  # it is in the log already
            if isinstance(untold, ApiRefused):
                entry.untold = str(untold)
            logger.warning(
                "failure not told", extra={"service": "/".join(key), "error": repr(untold)}
            )

    def _pace_s(self, resource: Mapping[str, Any]) -> float:
        if self.tick_s > 0.0:
            return self.tick_s
        scaling = resource["spec"].get("scaling") or {}
        pace = scaling.get("tickSeconds", DEFAULT_TICK_S)
        return float(pace) if isinstance(pace, int) and pace > 0 else DEFAULT_TICK_S


def _is_expected(error: Exception) -> bool:
    return isinstance(error, EpidoteError | TimeoutError)
