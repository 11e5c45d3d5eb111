"""This file is about rows that can't be used: named by line, counted, and refused when too many."""

from dataclasses import dataclass, field
from pathlib import Path

from epidote_loadgen.bounds import MOST_TOKENS

NUM_NAMED = 5  # rows quoted in a message; a broken file shows its pattern in so many


class TraceError(ValueError):
    """A trace that can't be replayed; the message names the file, the line and the column."""


class BadRow(ValueError):
    """One row that can't be used: which column, what was wanted, what was found."""

    def __init__(self, column: str, wanted: str, found: object) -> None:
        shown = repr(found)
        super().__init__(f"{column}: want {wanted}, found {shown[:60]}")


@dataclass(kw_only=True)
class BadRows:
    """Counts what was skipped. `allowed` rows may be bad; one more refuses the trace."""

    path: Path
    allowed: int = 0
    count: int = 0
    first: list[str] = field(default_factory=list)

    def note(self, line: int, problem: BadRow) -> None:
        """Remember a bad row.

        Raises:
            TraceError: there are more than `allowed`.
        """
        self.count += 1
        if len(self.first) < NUM_NAMED:
            self.first.append(f"line {line}: {problem}")
        if self.count > self.allowed:
            listed = "; ".join(self.first)
            hint = f"{self.allowed} bad rows are allowed" if self.allowed else "none is allowed"
            raise TraceError(f"{self.path}: {listed} ({hint}: raise max_bad_rows to skip)")


def whole(value: object, column: str, *, least: int = 0, most: int = MOST_TOKENS) -> int:
    """A whole number from `least` to `most`, from text or JSON.

    Raises:
        BadRow: it is none.
    """
    wanted = f"a whole number from {least} to {most}"
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        raise BadRow(column, wanted, value)
    try:
        number = int(value)
    except ValueError:
        raise BadRow(column, wanted, value) from None
    if not least <= number <= most:
        raise BadRow(column, wanted, value)
    return number


def name(value: object, column: str) -> str:
    """A text that may stand in a header or a table: printable, in one line.

    Raises:
        BadRow: it is none.
    """
    if not isinstance(value, str):
        raise BadRow(column, "a string", value)
    if not value.isprintable():
        raise BadRow(column, "printable characters", value)
    return value


def seconds(value: object, column: str, *, per_s: float = 1.0) -> float:
    """A time of at least 0, from text or JSON, in seconds; `per_s` units make one.

    Raises:
        BadRow: it is none, or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise BadRow(column, "a time >= 0", value)
    try:
        number = float(value) / per_s
    except ValueError:
        raise BadRow(column, "a time >= 0", value) from None
    if not 0.0 <= number < float("inf"):
        raise BadRow(column, "a time >= 0", value)
    return number
