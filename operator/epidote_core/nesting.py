"""This file is about how deeply JSON from outside may be nested: all that reads it may recurse."""

from collections.abc import Mapping
from typing import Any

MAX_DEPTH = 64  # tool schemas and arguments need a dozen; Python's recursion ends near a thousand

_NESTS = (Mapping, list, tuple)


def too_deep(value: Any, max_depth: int = MAX_DEPTH) -> bool:
    """Whether lists and objects are nested more than `max_depth` deep. Does not recurse.

    >>> too_deep([[1]], 2), too_deep({"a": [[1]]}, 2)
    (False, True)
    """
    level = [value] if isinstance(value, _NESTS) else []
    for _ in range(max_depth):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, _NESTS)
        ]
    return bool(level)
