"""This file is about reading stored values back as strictly as if a stranger had written them.

They come from a resource's status, which anybody may edit: each value is checked by its path before
anything is planned from it.
"""

from collections.abc import Mapping
from math import inf
from typing import Any

from epidote_planner.distribution import Distribution
from epidote_planner.field_checks import require_number
from epidote_planner.forecast import UNKNOWN, Series

# Of any level: an observation brings at most 1e9 requests/s of 1e9 tokens (`intake.MOST`), and a
# forecast doubles that. What is planned from squares of much more leaves the range of numbers.
MOST = 1e20


def a_mapping(data: object, path: str) -> Mapping[str, Any]:
    """
    Raises:
        ValueError: it is none, or a key of it is no text.
    """
    if not isinstance(data, Mapping) or not all(isinstance(key, str) for key in data):
        raise ValueError(f"{path}: want an object, got {data!r:.60}")
    return data


def a_number(data: object, path: str, *, least: float = -inf, most: float = inf) -> float:
    """A finite number, as it is.

    Raises:
        ValueError: it is none, or out of range.
    """
    require_number(path, data, least=least, most=most)
    assert isinstance(data, int | float)
    return data


def a_time(data: object, path: str) -> float | None:
    """A time, or None where nothing is stored.

    Raises:
        ValueError: it is neither.
    """
    return None if data is None else a_number(data, path)


def numbers(data: object, path: str, *, least: float = -inf, most: float = inf) -> dict[str, float]:
    """A number by name; nothing stored is no number.

    Raises:
        ValueError: something else.
    """
    items = {} if data is None else a_mapping(data, path)
    return {
        key: a_number(value, f"{path}.{key}", least=least, most=most)
        for key, value in items.items()
    }


def a_list(data: object, path: str) -> list[Any]:
    """
    Raises:
        ValueError: it is none.
    """
    if not isinstance(data, list | tuple):
        raise ValueError(f"{path}: want a list, got {data!r:.60}")
    return list(data)


def pairs(data: object, path: str) -> tuple[tuple[float, float], ...]:
    """Pairs of a time and a number from 0 to `MOST`.

    Raises:
        ValueError: something else.
    """
    found = []
    for index, item in enumerate(a_list(data, path)):
        pair = a_list(item, f"{path}[{index}]")
        if len(pair) != 2:
            raise ValueError(f"{path}[{index}]: want a pair, got {item!r:.60}")
        at_s = a_number(pair[0], f"{path}[{index}][0]")
        found.append((at_s, a_number(pair[1], f"{path}[{index}][1]", least=0.0, most=MOST)))
    return tuple(found)


def a_series(data: object, path: str) -> Series:
    """
    Raises:
        ValueError: a part of it is missing or cannot be.
    """
    items = a_mapping(data, path)
    at_s, since_s = items.get("at_s"), items.get("since_s")
    if since_s is not None:
        a_number(since_s, f"{path}.since_s", most=a_number(at_s, f"{path}.at_s"))
    return Series(
        at_s=a_number(at_s, f"{path}.at_s"),
        level=a_number(items.get("level"), f"{path}.level", least=0.0, most=MOST),
        slope=a_number(items.get("slope"), f"{path}.slope"),
        error2=a_number(items.get("error2"), f"{path}.error2", least=0.0, most=MOST**2),
        miss2=a_number(items.get("miss2", 0.0), f"{path}.miss2", least=0.0, most=MOST**2),
        promises=pairs(items.get("promises", ()), f"{path}.promises"),
        season=tuple(
            a_number(value, f"{path}.season", least=UNKNOWN)
            for value in a_list(items.get("season", ()), f"{path}.season")
        ),
        since_s=since_s,
    )


def a_distribution(data: object, path: str) -> Distribution:
    """
    Raises:
        ValueError: a part of it cannot be.
    """
    items = numbers(data, path, least=0.0, most=MOST)
    if unknown := items.keys() - Distribution.__dataclass_fields__.keys():
        raise ValueError(f"{path}: no field {sorted(unknown)[0]!r}")
    return Distribution(**items)
