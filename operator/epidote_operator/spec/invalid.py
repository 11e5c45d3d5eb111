"""This file is about the findings of validation: which field, what was wanted, what was found."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from epidote_core.errors import EpidoteError

NOTHING = "nothing"
_LONGEST = 120  # characters of a value that are shown


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One reason to refuse a resource.

    >>> str(Problem(path="spec.slo.ttftMilliseconds", wanted="must be at least 1", found="-5"))
    'spec.slo.ttftMilliseconds: must be at least 1, got -5'
    """

    path: str
    wanted: str
    found: str

    def __str__(self) -> str:
        return f"{self.path}: {self.wanted}, got {self.found}"


class InvalidSpec(EpidoteError, ValueError):
    """A resource that can't be honoured; the message has one line per problem."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def shown(value: Any) -> str:
    """A found value in a message: as in JSON, cut where it is long.

    >>> shown(None), shown(True), shown("a"), shown({"b": 1})
    ('nothing', 'true', "'a'", 'an object')
    """
    match value:
        case None:
            return NOTHING
        case bool():
            return str(value).lower()
        case dict():
            return "an object"
        case list() | tuple():
            return "a list"
        case _:
            text = repr(value)
            return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def plain(number: float) -> str:
    """A bound in a message: whole numbers without exponent.

    >>> plain(3_600_000), plain(16_777_216.0), plain(0.5)
    ('3600000', '16777216', '0.5')
    """
    return f"{number:.0f}" if float(number).is_integer() else f"{number:g}"


def repeated(path: str, values: Iterable[object], field: str = "") -> Iterator[Problem]:
    """A problem for every entry that was there before."""
    seen = set()
    for number, value in enumerate(values):
        if value in seen:
            yield Problem(
                path=f"{path}[{number}]{field}",
                wanted="must not be repeated",
                found=shown(str(value)),
            )
        seen.add(value)


def names(values: Iterable[StrEnum]) -> str:
    """Their spellings, in a row."""
    return ", ".join(value.value for value in values)
