"""This file is about reading a trace file row by row, whatever its format and compression."""

import csv
import gzip
import zlib
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TextIO

from epidote_loadgen.traces import csv_traces, json_traces
from epidote_loadgen.traces.bad_rows import BadRow, BadRows, TraceError
from epidote_loadgen.traces.trace_row import TraceRow


class TraceFormat(StrEnum):
    """`AUTO` tells formats apart by the columns or fields of the first line."""

    AUTO = "auto"
    AZURE = "azure"
    SERVEGEN = "servegen"
    MOONCAKE = "mooncake"
    OWN = "own"


def read_rows(
    path: Path, *, trace_format: TraceFormat = TraceFormat.AUTO, bad: BadRows | None = None
) -> Iterator[TraceRow]:
    """The good rows of a file, lazily and in its order; `.gz` is unpacked. Mutates `bad`.

    Raises:
        TraceError: no such file, an unknown format, or more bad rows than `bad` allows.
    """
    bad = bad or BadRows(path=path)
    want = None if trace_format is TraceFormat.AUTO else trace_format.value
    try:
        with _open(path) as file:
            first = _first_line(file)
            is_json = trace_format in (TraceFormat.MOONCAKE, TraceFormat.OWN)
            if is_json or (want is None and first.lstrip().startswith("{")):
                yield from _json_rows(first, file, want, bad)
            else:
                yield from _csv_rows(first, file, want, bad)
    except TraceError as error:
        message = str(error)
        raise TraceError(message if str(path) in message else f"{path}: {message}") from error
    except FileNotFoundError as error:
        raise TraceError(f"{path}: can't be read as a trace: no such file") from error
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise TraceError(f"{path}: can't be read as a trace: {error}") from error


def _first_line(file: TextIO) -> str:
    """Raises TraceError: it tells nothing about the rest."""
    first = file.readline()
    if not first.strip():
        raise TraceError("line 1: want a header or a JSON row, found nothing")
    try:
        return _checked(first)
    except BadRow as problem:
        raise TraceError(f"line 1: {problem}") from problem


def _open(path: Path) -> TextIO:
    """As UTF-8, which a byte order mark may begin; a byte that is none becomes a surrogate, for its
    row alone to be refused."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", errors="surrogateescape", newline="")
    return path.open(encoding="utf-8-sig", errors="surrogateescape", newline="")


def _checked(text: str) -> str:
    """Raises BadRow: it was not UTF-8."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            found = text[error.start].encode(errors="surrogateescape")
            raise BadRow("row", "UTF-8", found) from None
    return text


def _csv_rows(first: str, file: TextIO, want: str | None, bad: BadRows) -> Iterator[TraceRow]:
    header = next(csv.reader([first]))
    parse = csv_traces.parser_for(header, want=want)
    for line_number, line in enumerate(file, 2):
        try:
            # Each line for itself: a stray quote spoils its own row and swallows no others.
            cells = next(csv.reader([_checked(line)]), [])
            if not cells:
                continue
            if len(cells) != len(header):
                raise BadRow("row", f"{len(header)} columns", ",".join(cells))
            row = parse(cells)
        except csv.Error as error:
            bad.note(line_number, BadRow("row", "a row of CSV", str(error)))
            continue
        except BadRow as problem:
            bad.note(line_number, problem)
            continue
        yield row


def _json_rows(first: str, file: TextIO, want: str | None, bad: BadRows) -> Iterator[TraceRow]:
    parse = json_traces.parser_for(first, want=want)
    line_number, line = 1, first
    while line:
        if line.strip():
            try:
                row = parse(_checked(line))
            except BadRow as problem:
                bad.note(line_number, problem)
            else:
                yield row
        line_number, line = line_number + 1, file.readline()
