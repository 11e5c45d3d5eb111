"""This file is about refusing a setting that cannot be, by its field's name, before it is used."""

from math import inf
from sys import float_info


def require_number(
    field: str, value: object, *, least: float = 0.0, most: float = inf, above: bool = False
) -> None:
    """A finite number in [least, most], or over `least` where `above`.

    Raises:
        ValueError: it is none; names the field, what was wanted and what was found.
    """
    if not isinstance(value, bool) and isinstance(value, int | float):
        inside = value > least if above else value >= least
        # false for NaN; whole numbers may be larger than any float
        if inside and abs(value) <= float_info.max and value <= most:
            return
    upper = f" and <= {most:g}" if most < inf else ""
    sign = ">" if above else ">="
    raise ValueError(f"{field}: want a number {sign} {least:g}{upper}, got {value!r:.60}")


def require_count(field: str, value: object, *, least: int = 0) -> None:
    """A whole number from `least` on.

    Raises:
        ValueError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{field}: want a whole number >= {least}, got {value!r:.60}")


def require_text(field: str, value: object) -> None:
    """A text that says something.

    Raises:
        ValueError: it does not.
    """
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{field}: want a text, got {value!r:.60}")
