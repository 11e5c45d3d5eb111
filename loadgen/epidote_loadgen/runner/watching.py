"""This file is about letting a watcher look at the service beside the run, in a thread."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from epidote_loadgen.records import Watcher

logger = logging.getLogger(__name__)
CLOSE_S = 10.0


class WatcherThread:
    """Runs `watcher.watch` on an event loop of its own until `close`."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._task: asyncio.Task[None] | None = None
        self._start_s = 0.0

    def start(self, start_s: float) -> None:
        """`start_s` of the run on `time.monotonic`."""
        self._start_s = start_s
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def close(self) -> Mapping[str, Any]:
        """End the watch; what it saw, {} if it never began."""
        if self._thread is None:
            self._loop.close()
            return {}
        with contextlib.suppress(RuntimeError):  # it failed before: its loop is closed
            self._loop.call_soon_threadsafe(lambda: self._task and self._task.cancel())
        self._thread.join(CLOSE_S)
        return self._watcher.result()

    def _run(self) -> None:
        async def watch() -> None:
            self._task = asyncio.current_task()
            await self._watcher.watch(lambda: time.monotonic() - self._start_s)

        try:
            self._loop.run_until_complete(watch())
        except asyncio.CancelledError:
            pass
        except Exception:  # a run is worth more than its view: it goes on without
            logger.warning("the watcher failed, the run goes on", exc_info=True)
        finally:
            self._loop.close()
