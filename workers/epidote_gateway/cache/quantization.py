"""This file is about how a vector's components are kept: 4, 2 or 1 bytes each."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from epidote_gateway.cache.policy import Precision
from epidote_gateway.cache.protocols import Vector

Stored = NDArray[Any]  # float32, float16 or int8
DTYPES: dict[Precision, np.dtype[Any]] = {
    Precision.FLOAT32: np.dtype(np.float32),
    Precision.FLOAT16: np.dtype(np.float16),
    Precision.INT8: np.dtype(np.int8),
}


def quantize(vector: Vector, precision: Precision) -> Stored:
    """A unit vector in its stored form. Int8: 127 stands for 1.0."""
    if precision is Precision.INT8:
        return np.round(vector * 127.0).astype(np.int8)
    stored: Stored = vector.astype(DTYPES[precision], copy=False)
    return stored


def dequantize(stored: Stored) -> Vector:
    """A unit vector again, nearly the one before."""
    vector: Vector = stored.astype(np.float32)
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def similarities(rows: Stored, query: Vector, precision: Precision) -> Vector:
    """Cosines of `query` with each of `rows`, [len(rows)] float32. Exact for what is stored."""
    if precision is Precision.FLOAT32:
        found: Vector = rows @ query
        return found
    import numkong  # comes with usearch; numpy would widen every row first, at 30 times the cost

    asked = quantize(query, precision)
    distances: Vector = np.asarray(
        numkong.cdist(asked[None], rows, metric="angular"), dtype=np.float32
    )[0]
    return np.float32(1.0) - distances
