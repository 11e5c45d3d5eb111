"""This file is about watching a service during a run: looks at every source, again and again."""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from epidote_loadgen.watch.history import History
from epidote_loadgen.watch.look import LookFailed, Source

logger = logging.getLogger(__name__)


class FleetWatcher:
    """Looks every `interval_s` at each source by itself, so that a slow one delays no other."""

    def __init__(self, sources: Sequence[Source], *, interval_s: float = 1.0) -> None:
        self._sources = tuple(sources)
        self._interval_s = interval_s
        self._history = History()

    async def watch(self, now_s: Callable[[], float]) -> None:
        """Until cancelled."""
        unix_at_zero_s = time.time() - now_s()
        try:
            async with asyncio.TaskGroup() as group:
                for source in self._sources:
                    group.create_task(self._watch_one(source, now_s, unix_at_zero_s))
        finally:
            for source in self._sources:
                await source.close()

    def result(self) -> Mapping[str, Any]:
        """What was seen, as docs/loadgen.md describes it."""
        return {
            "sources": [source.name for source in self._sources],
            "interval_s": self._interval_s,
            **self._history.to_json(),
        }

    async def _watch_one(
        self, source: Source, now_s: Callable[[], float], unix_at_zero_s: float
    ) -> None:
        while True:
            began_s = now_s()
            try:
                look = await source.look()
            except LookFailed as failure:
                self._history.fail(source.name, str(failure), at_s=now_s())
                logger.debug("look failed", extra={"source": source.name})
            else:
                self._history.add(source.name, look, at_s=now_s(), unix_at_zero_s=unix_at_zero_s)
            await asyncio.sleep(max(0.01, self._interval_s - (now_s() - began_s)))
