"""This file is about when LoadTests are looked at: every second or so while they have not ended."""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from epidote_operator.handlers.ticker import Key
from epidote_operator.kube.api import Manifest
from epidote_operator.load_tests import ENDED, LoadTests

logger = logging.getLogger(__name__)

LOOK_S = 1.0
_ENDED = frozenset(phase.value for phase in ENDED)


@dataclass(frozen=True, kw_only=True)
class LoadTestTicker:
    """Reconciles the LoadTests that `listed()` has."""

    load_tests: LoadTests
    listed: Callable[[], Iterable[tuple[Key, Manifest]]]
    is_active: Callable[[], bool]
    clock: Callable[[], float]

    async def run(self) -> None:
        """Until cancelled. One test's trouble does not keep the others waiting."""
        while True:
            if self.is_active():
                for key, resource in list(self.listed()):
                    await self._look(key, resource)
            await asyncio.sleep(LOOK_S)

    async def _look(self, key: Key, resource: Manifest) -> None:
        is_over = (resource.get("status") or {}).get("phase") in _ENDED
        if is_over or "deletionTimestamp" in resource["metadata"]:
            return
        try:
            await self.load_tests.reconcile(resource, self.clock())
        except Exception as error:  # the next look tries again
            logger.warning(
                "load test not reconciled", extra={"test": "/".join(key), "error": repr(error)}
            )
