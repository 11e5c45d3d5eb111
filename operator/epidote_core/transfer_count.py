"""This file is about how much went between workers' pools, by the way it took."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Transfer(StrEnum):
    """What went from one worker's pool into another's."""

    KV = "kv"
    EMBEDDINGS = "embeddings"


class Direction(StrEnum):
    """Seen from the worker that counts."""

    IN = "in"  # copied from a peer
    OUT = "out"  # copied by a peer, which says so afterwards


@dataclass(frozen=True, kw_only=True)
class TransferCount:
    """Copies of one kind by one transport in one direction, since the worker's start.

    `busy_s` adds up the seconds of all copies, those that ran side by side too; a copy that failed
    counts nowhere.
    """

    transport: str  # shared_memory | cuda_ipc | nixl | ray_objects | connection
    kind: Transfer
    direction: Direction
    num_copies: int
    num_bytes: int  # that crossed: codes, where KV is quantised on the way
    busy_s: float


def summed(counts: Iterable[TransferCount]) -> tuple[TransferCount, ...]:
    """One count for each transport, kind and direction that occurs, in that order."""
    sums: dict[tuple[str, Transfer, Direction], tuple[int, int, float]] = {}
    for one in counts:
        key = (one.transport, one.kind, one.direction)
        copies, num_bytes, busy_s = sums.get(key, (0, 0, 0.0))
        sums[key] = (copies + one.num_copies, num_bytes + one.num_bytes, busy_s + one.busy_s)
    return tuple(
        TransferCount(
            transport=transport,
            kind=kind,
            direction=direction,
            num_copies=copies,
            num_bytes=num_bytes,
            busy_s=busy_s,
        )
        for (transport, kind, direction), (copies, num_bytes, busy_s) in sorted(sums.items())
    )
