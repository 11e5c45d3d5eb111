"""This file is about telling of a layer's KV when the device has written it, not when it was asked.

On a GPU a layer's hook runs while the layer is only enqueued. An event behind the layer and a
thread that waits for it turn "enqueued" into "there": spans go out layer by layer, behind compute,
and the engine's thread never waits.
"""

import logging
import queue
import threading
from collections.abc import Callable

from epidote_engine.device_events import DeviceEvent, Record, recorded_event
from epidote_engine.events import KvReady

logger = logging.getLogger(__name__)

Tell = Callable[[list[KvReady]], None]


class LayerEvents:
    """Hands spans on, in order, each when its event has come. Ends with the process."""

    def __init__(self, record: Record = recorded_event) -> None:
        self._record = record
        self._waiting: queue.SimpleQueue[tuple[DeviceEvent, list[KvReady], Tell]] = (
            queue.SimpleQueue()
        )
        self._thread: threading.Thread | None = None

    def behind(self, tell: Tell) -> Tell:
        """`tell`, but later and from another thread."""

        def announce(spans: list[KvReady]) -> None:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="epidote-layers", daemon=True
                )
                self._thread.start()
            self._waiting.put((self._record(), spans, tell))

        return announce

    def _run(self) -> None:
        while True:
            event, spans, tell = self._waiting.get()
            try:
                event.synchronize()
            except RuntimeError as error:  # the step fails as well, and the engine says so
                logger.warning("layer not announced", extra={"error": repr(error)})
                continue
            tell(spans)
