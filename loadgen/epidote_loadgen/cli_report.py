"""This file is about `epidote-loadgen report` and `compare`: what was measured, looked at again."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from epidote_loadgen.cli_session import exit_codes
from epidote_loadgen.compare.comparison import compare as compared
from epidote_loadgen.compare.telling import to_json, told
from epidote_loadgen.outputs.junit import write_junit
from epidote_loadgen.outputs.reading import read_document, told_as_damaged
from epidote_loadgen.outputs.writing import write_text
from epidote_loadgen.report.page import page
from epidote_loadgen.verdict.verdict import ExitCode

EXIT_WORSE = ExitCode.MISSED


def report(
    run: Annotated[Path, typer.Argument(help="The JSON that a run wrote (--json).")],
    html: Annotated[Path | None, typer.Option(help="Page to write. (default: RUN.html)")] = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML to write.")] = None,
) -> None:
    """Make the page of a run from its JSON, anywhere and at any time.

    Exits as the run did. Example: epidote-loadgen report run.json --html run.html
    """
    with exit_codes():
        document = read_document(run)
        place = html or run.with_suffix(".html")
        with told_as_damaged(run):
            text = page(document)
        try:
            write_text(place, text)
            if junit is not None:
                write_junit(junit, document)
        except OSError as error:
            raise ValueError(f"{error.filename}: can't be written: {error.strerror}") from error
        typer.echo(f"{document['verdict']['outcome']} {document['verdict']['reason']}")
        typer.echo(f"wrote {place}", err=True)
    raise typer.Exit(int(document["verdict"]["exit_code"]))


def compare(
    before: Annotated[Path, typer.Argument(help="JSON of the run that is the measure.")],
    after: Annotated[Path, typer.Argument(help="JSON of the run that is judged.")],
    confidence: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Of all changes together.")
    ] = 0.95,
    as_json: Annotated[bool, typer.Option("--json", help="The comparison as JSON.")] = False,
) -> None:
    """Tell what differs between two runs by more than chance. Exit code 1: something got worse.

    Example: epidote-loadgen compare main.json branch.json
    """
    with exit_codes():
        documents = read_document(before), read_document(after)
        with told_as_damaged(after):
            found = compared(*documents, confidence=confidence)
        if as_json:
            typer.echo(json.dumps(to_json(found), allow_nan=False))
        else:
            Console().print(told(found))
    raise typer.Exit(EXIT_WORSE if found.is_worse else ExitCode.MET)
