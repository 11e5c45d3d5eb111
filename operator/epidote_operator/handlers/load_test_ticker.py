"""This file is about when LoadTests are looked at: every second or so while they have not ended.

One whose look fails (the API server refuses, or is away) is looked at again later and later.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from epidote_operator.handlers.ticker import Key
from epidote_operator.kube.api import Manifest
from epidote_operator.load_tests import LoadTests
from epidote_operator.status.load_test import ENDED

logger = logging.getLogger(__name__)

LOOK_S, MAX_PAUSE_S = 1.0, 60.0
_ENDED = frozenset(phase.value for phase in ENDED)


@dataclass(frozen=True, kw_only=True)
class LoadTestTicker:
    """Reconciles the LoadTests that `listed()` has."""

    load_tests: LoadTests
    listed: Callable[[], Iterable[tuple[Key, Manifest]]]
    is_active: Callable[[], bool]
    clock: Callable[[], float]
    _pauses: dict[Key, tuple[float, float]] = field(default_factory=dict)  # until when, how long

    async def run(self) -> None:
        """Until cancelled. One test's trouble does not keep the others waiting."""
        while True:
            if self.is_active():
                await self.look()
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """At every LoadTest that is due."""
        listed = dict(self.listed())
        for key in self._pauses.keys() - listed.keys():
            del self._pauses[key]
        for key, resource in listed.items():
            await self._look(key, resource)

    async def _look(self, key: Key, resource: Manifest) -> None:
        is_over = (resource.get("status") or {}).get("phase") in _ENDED
        if is_over or "deletionTimestamp" in resource["metadata"]:
            return
        until_s, pause_s = self._pauses.get(key, (0.0, LOOK_S))
        if self.clock() < until_s:
            return
        try:
            await self.load_tests.reconcile(resource, self.clock())
        except Exception as error:  # a later look tries again
            self._pauses[key] = (self.clock() + pause_s, min(2 * pause_s, MAX_PAUSE_S))
            logger.warning(
                "load test not reconciled", extra={"test": "/".join(key), "error": repr(error)}
            )
        else:
            self._pauses.pop(key, None)
