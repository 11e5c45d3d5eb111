"""This file is about pixels kept until their embedding was fetched.

An embedding that waits for its prefill is not pinned: pinned ones of requests that wait could fill
the encoder's pool while the request ahead of them waits for room there. It may thus be evicted
before it was fetched, and is then encoded again.
"""

from collections import OrderedDict
from dataclasses import dataclass

from epidote_core.generation import MediaPixels


@dataclass(eq=False)
class _Kept:
    pixels: MediaPixels
    wanted: int  # fetches still to come
    since_s: float


class KeptPixels:
    """Oldest first; the oldest go when there are too many bytes."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[str, _Kept] = OrderedDict()
        self._num_bytes = 0

    @property
    def newest_s(self) -> float:
        """When the last medium came that nobody has fetched yet; long ago if there is none."""
        return next(reversed(self._kept.values())).since_s if self._kept else float("-inf")

    def get(self, key: str) -> MediaPixels | None:
        """May be called in any thread."""
        kept = self._kept.get(key)
        return kept.pixels if kept is not None else None

    def add(self, pixels: MediaPixels, now_s: float) -> None:
        """One more fetch of `pixels` will come."""
        kept = self._kept.pop(pixels.key, None)
        if kept is None:
            kept = _Kept(pixels, 0, now_s)
            self._num_bytes += len(pixels.data)
        kept.wanted, kept.since_s = kept.wanted + 1, now_s
        self._kept[pixels.key] = kept
        while self._num_bytes > self._max_bytes and len(self._kept) > 1:
            self.drop(next(iter(self._kept)))

    def used(self, key: str) -> None:
        """One fetch is done."""
        kept = self._kept.get(key)
        if kept is not None:
            kept.wanted -= 1
            if kept.wanted <= 0:
                self.drop(key)

    def drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self._num_bytes -= len(kept.pixels.data)

    def expire(self, before_s: float) -> None:
        """Drop what came before that time: its request is gone."""
        while self._kept and (oldest := next(iter(self._kept.items())))[1].since_s < before_s:
            self.drop(oldest[0])
