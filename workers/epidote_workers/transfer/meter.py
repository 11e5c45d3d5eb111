"""This file is about counting what is copied between workers, by transport and kind.

Who copies counts it, since a pool that is mapped or read by a network card does not notice its
readers. They tell the pool's owner afterwards (`TAKEN`), whose count of what went out is theirs.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace

from epidote_core.transfer_count import Direction, Transfer, TransferCount, summed
from epidote_workers.transfer.layout import MEDIA_POOL
from epidote_workers.transfer.transport import LocalPool, PeerPool


class TransferMeter:
    """Sums of copies. Belongs to the loop."""

    def __init__(self) -> None:
        self._sums: tuple[TransferCount, ...] = ()

    @property
    def counts(self) -> tuple[TransferCount, ...]:
        """Everything so far."""
        return self._sums

    def add(self, counts: Iterable[TransferCount]) -> None:
        self._sums = summed((*self._sums, *counts))

    def take(self) -> tuple[TransferCount, ...]:
        """Everything so far, which is forgotten."""
        taken, self._sums = self._sums, ()
        return taken


def seen_by_owner(counts: Iterable[TransferCount]) -> tuple[TransferCount, ...]:
    """What a peer copied in went out of the pool that it was copied from."""
    return tuple(replace(one, direction=Direction.OUT) for one in counts)


class MeteredPool:
    """A peer's pool whose reads are counted by every one of `meters`; a `PeerPool`."""

    def __init__(self, pool: PeerPool, name: str, meters: Sequence[TransferMeter]) -> None:
        """`name` is the pool's layout's: KV of whichever rank, or embeddings."""
        self._pool, self._meters = pool, meters
        self._kind = Transfer.EMBEDDINGS if name == MEDIA_POOL else Transfer.KV

    @property
    def transport(self) -> str:
        return self._pool.transport

    async def read(
        self, units: Sequence[int], into: LocalPool, into_units: Sequence[int], layers: range
    ) -> int:
        start_s = time.perf_counter()
        num_bytes = await self._pool.read(units, into, into_units, layers)
        count = TransferCount(
            transport=self._pool.transport,
            kind=self._kind,
            direction=Direction.IN,
            num_copies=1,
            num_bytes=num_bytes,
            busy_s=time.perf_counter() - start_s,
        )
        for meter in self._meters:
            meter.add((count,))
        return num_bytes

    def close(self) -> None:
        self._pool.close()
