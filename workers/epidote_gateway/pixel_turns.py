"""This file is about pictures being decoded at the same time: their pixels together are bounded."""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class PixelTurns:
    """A first-come-first-served semaphore counted in pixels, for threads."""

    def __init__(self, max_pixels: int) -> None:
        self._max_pixels = max_pixels
        self._num_pixels = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def of(self, num_pixels: int) -> Iterator[None]:
        """Wait for room, hold it for the block. What is larger than all room waits to be alone."""
        weight = min(num_pixels, self._max_pixels)
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            self._changed.wait_for(
                lambda: self._waiting[0] is ticket and self._num_pixels + weight <= self._max_pixels
            )
            self._waiting.popleft()
            self._num_pixels += weight
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._num_pixels -= weight
                self._changed.notify_all()
