"""This file is about writing all files that were asked for, each by itself."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from epidote_loadgen.outputs.document import Document, write_document
from epidote_loadgen.outputs.junit import write_junit
from epidote_loadgen.outputs.tables import write_csv, write_parquet
from epidote_loadgen.outputs.writing import write_text
from epidote_loadgen.records import RunResult
from epidote_loadgen.report.page import page
from epidote_loadgen.slo import SloTable


@dataclass(frozen=True, kw_only=True)
class Files:
    """Where to write what; None: not wanted."""

    json: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None
    junit: Path | None = None
    html: Path | None = None


def save(files: Files, run: Document, result: RunResult, slo: SloTable) -> list[str]:
    """Write every file that is wanted; a problem with one is told and keeps no other back."""
    wanted: list[tuple[Path | None, Callable[[Path], None]]] = [
        (files.json, lambda path: write_document(path, run)),
        (files.csv, lambda path: write_csv(path, result.records, slo)),
        (files.parquet, lambda path: write_parquet(path, result.records, slo)),
        (files.junit, lambda path: write_junit(path, run)),
        (files.html, lambda path: write_text(path, page(run))),
    ]
    problems = []
    for path, write in wanted:
        if path is None:
            continue
        try:
            write(path)
        except OSError as error:
            problems.append(f"{path}: can't be written: {error.strerror or error}")
    return problems
