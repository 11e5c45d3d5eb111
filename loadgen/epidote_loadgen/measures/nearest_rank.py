"""This file is about quantiles of a few values, each of which is one of them."""

import math
from collections.abc import Sequence


def nearest_rank(values: Sequence[float], q: float) -> float:
    """The smallest value that at least `q` of them do not exceed; any order, at least one.

    >>> nearest_rank([0.1, 0.5, 0.2], 0.99), nearest_rank([3.0, 1.0], 0.5)
    (0.5, 1.0)
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]
