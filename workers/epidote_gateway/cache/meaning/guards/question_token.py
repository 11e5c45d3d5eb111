"""This file is about one word, number, date, unit or piece of code of a question."""

from dataclasses import dataclass, field
from enum import StrEnum


class Kind(StrEnum):
    WORD = "word"
    NUMBER = "number"
    DATE = "date"
    UNIT = "unit"
    CODE = "code"
    BREAK = "break"  # a comma or a full stop: carries nothing, but parts what it stands between


@dataclass(frozen=True, slots=True)
class Token:
    """`value` is canonical: `km` and `kilometers` are equal, `two` and `2` are equal.

    `written` is the word with its letter case, for `Kind.WORD`; tokens are equal without it.
    """

    kind: Kind
    value: str
    written: str = field(default="", compare=False)
