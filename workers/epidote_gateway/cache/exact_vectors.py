"""This file is about finding neighbours by looking at every vector: right, and fast up to 10,000.

Removing moves the last row into the hole, so there is nothing to compact.
"""

import numpy as np

from epidote_gateway.cache.policy import Precision
from epidote_gateway.cache.protocols import Vector
from epidote_gateway.cache.quantization import DTYPES, Stored, quantize, similarities


class ExactVectors:
    """Vectors by integer key. Searching n rows costs n x dimensions multiplications."""

    def __init__(self, dimensions: int, precision: Precision) -> None:
        self._precision = precision
        self._rows: Stored = np.empty((1, dimensions), DTYPES[precision])
        self._keys: list[int] = []
        self._row_of: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def __contains__(self, key: int) -> bool:
        return key in self._row_of

    @property
    def num_bytes(self) -> int:
        return self._rows.nbytes

    def add(self, key: int, vector: Vector) -> None:
        """`key` must be new, `vector` of length 1."""
        assert key not in self._row_of, f"key {key} twice"
        place = len(self._keys)
        if place == len(self._rows):
            grown = np.empty((max(4, 2 * place), self._rows.shape[1]), self._rows.dtype)
            grown[:place] = self._rows
            self._rows = grown
        self._rows[place] = quantize(vector, self._precision)
        self._keys.append(key)
        self._row_of[key] = place

    def remove(self, key: int) -> None:
        """Unknown keys are ignored."""
        row = self._row_of.pop(key, None)
        if row is None:
            return
        last = self._keys.pop()
        if last != key:
            self._rows[row] = self._rows[len(self._keys)]
            self._keys[row] = last
            self._row_of[last] = row

    def search(self, vector: Vector, count: int) -> list[tuple[int, float]]:
        """(key, cosine) of the `count` nearest, nearest first."""
        num_rows = len(self._keys)
        if not num_rows:
            return []
        cosines = similarities(self._rows[:num_rows], vector, self._precision)
        if num_rows > count:
            rows = np.argpartition(cosines, num_rows - count)[num_rows - count :]
        else:
            rows = np.arange(num_rows)
        rows = rows[np.argsort(-cosines[rows], kind="stable")]
        return [(self._keys[row], float(cosines[row])) for row in rows]

    def stored(self, key: int) -> Stored:
        """The row of `key`, which must be there."""
        row: Stored = self._rows[self._row_of[key]]
        return row

    def copy(self) -> tuple[list[int], Stored]:
        """Keys and stored rows, for building a graph beside."""
        return list(self._keys), self._rows[: len(self._keys)].copy()
