"""This file is about tables of requests: CSV for anyone, Parquet with every gap for analysis."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from epidote_loadgen.outputs.request_columns import COLUMNS, columns, row
from epidote_loadgen.outputs.writing import write_bytes, write_text
from epidote_loadgen.records import RequestRecord
from epidote_loadgen.slo import SloTable

_TYPES = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}
OFFSETS = "content_offsets_s"  # arrival of every event with content, from the intended send


def write_csv(path: Path, records: Sequence[RequestRecord], slo: SloTable) -> None:
    """One line a request, RFC 4180; unknown is empty, truth is true or false. Raises OSError."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow(COLUMNS)
    for record in records:
        values = row(record, slo).values()
        writer.writerow([str(v).lower() if isinstance(v, bool) else v for v in values])
    write_text(path, buffer.getvalue())


def write_parquet(path: Path, records: Sequence[RequestRecord], slo: SloTable) -> None:
    """The same columns, and `content_offsets_s` as a list of float32. Raises OSError."""
    table = columns(records, slo)
    fields = {name: pa.array(table[name], _TYPES[kind]) for name, kind in COLUMNS.items()}
    offsets = [list(record.content_offsets_s) for record in records]
    fields[OFFSETS] = pa.array(offsets, pa.list_(pa.float32()))
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(fields), sink, compression="zstd")
    write_bytes(path, sink.getvalue().to_pybytes())
