"""This file is about one partition's vectors: exact while they are few, a graph once they are many.

A graph is built in a thread, beside the vectors that go on answering; what changes meanwhile is
carried over before the graph takes their place.
"""

import asyncio
from collections.abc import Sequence

from epidote_gateway.cache.exact_vectors import ExactVectors
from epidote_gateway.cache.graph_vectors import GraphVectors
from epidote_gateway.cache.policy import Precision
from epidote_gateway.cache.protocols import Vector
from epidote_gateway.cache.quantization import Stored, dequantize

EXACT_LIMIT = 10_000  # vectors: 0.4 ms of one core at 384 dimensions; a graph takes 0.3 ms
SLICE = 256  # vectors a thread inserts before it looks whether it is still wanted


class Neighbours:
    """Vectors by key, for one event loop."""

    def __init__(
        self, dimensions: int, precision: Precision, *, exact_limit: int = EXACT_LIMIT
    ) -> None:
        self._dimensions = dimensions
        self._precision = precision
        self._exact_limit = exact_limit
        self._vectors: ExactVectors | GraphVectors = ExactVectors(dimensions, precision)
        self._keys: set[int] | None = None  # of a graph, which can't list its own
        self._journal: list[tuple[int, Vector | None]] | None = None  # while building

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def num_bytes(self) -> int:
        return self._vectors.num_bytes

    @property
    def is_graph(self) -> bool:
        return isinstance(self._vectors, GraphVectors)

    @property
    def wants_building(self) -> bool:
        """Whether `build` would make searches faster, and nobody is at it."""
        if self._journal is not None:
            return False
        if isinstance(self._vectors, GraphVectors):
            return self._vectors.is_worn
        return len(self._vectors) > self._exact_limit

    def add(self, key: int, vector: Vector) -> None:
        """`key` must be new."""
        self._vectors.add(key, vector)
        if self._keys is not None:
            self._keys.add(key)
        if self._journal is not None:
            self._journal.append((key, vector))

    def remove(self, key: int) -> None:
        """Unknown keys are ignored."""
        self._vectors.remove(key)
        if self._keys is not None:
            self._keys.discard(key)
        if self._journal is not None:
            self._journal.append((key, None))

    def vector(self, key: int) -> Vector | None:
        """As it is kept, hence nearly the one that was added; None for unknown keys."""
        return dequantize(self._vectors.stored(key)) if key in self._vectors else None

    def search(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        """(key, cosine) of up to `count` near ones, nearest first."""
        return self._vectors.search(vector, count)

    async def build(self) -> None:
        """Put a fresh graph (or, for few, fresh exact rows) in the place of what there is.

        Searches, additions and removals go on meanwhile.
        """
        keys, rows = self._copy()
        self._journal = []
        try:
            if len(keys) <= self._exact_limit:
                fresh: ExactVectors | GraphVectors = ExactVectors(self._dimensions, self._precision)
                for key, row in zip(keys, rows, strict=True):
                    fresh.add(key, dequantize(row))
            else:
                fresh = GraphVectors(self._dimensions, self._precision)
                for start in range(0, len(keys), SLICE):
                    part = slice(start, start + SLICE)
                    await asyncio.to_thread(fresh.add_stored, keys[part], rows[part])
            for key, vector in self._journal:
                if vector is None:
                    fresh.remove(key)
                else:
                    fresh.add(key, vector)
            current = set(keys)
            for key, vector in self._journal:
                (current.discard if vector is None else current.add)(key)
            self._keys = current if isinstance(fresh, GraphVectors) else None
            self._vectors = fresh
        finally:
            self._journal = None

    def _copy(self) -> tuple[Sequence[int], Stored]:
        if isinstance(self._vectors, ExactVectors):
            return self._vectors.copy()
        keys = list(self._keys or ())
        return keys, self._vectors.stored_rows(keys)
