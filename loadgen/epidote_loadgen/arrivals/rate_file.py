"""This file is about reading a request rate from a file: CSV of time and rate."""

import csv
from pathlib import Path

from epidote_loadgen.arrivals.rate import Rate, steps


def read_rate_file(path: Path, *, stepwise: bool = False) -> Rate:
    """Rows `at_s,rps` under that header; linear between rows, or each holding until the next.

    Raises:
        ValueError: naming the file, the line, what was wanted and what was found.
    """
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "want text in UTF-8"
        raise ValueError(f"{path}: can't be read as a rate file: {why}") from error
    if not rows or [cell.strip() for cell in rows[0]] != ["at_s", "rps"]:
        found = ",".join(rows[0]) if rows else "nothing"
        raise ValueError(f"{path}: line 1: want the header at_s,rps, found {found!r}")
    points: list[tuple[float, float]] = []
    for line, row in enumerate(rows[1:], start=2):
        if not row:
            continue
        try:
            at_s, rps = (float(cell) for cell in row)
        except ValueError:
            raise ValueError(
                f"{path}: line {line}: want two numbers at_s,rps, found {','.join(row)!r}"
            ) from None
        points.append((at_s, rps))
    try:
        return steps(points) if stepwise else Rate(tuple(points))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
