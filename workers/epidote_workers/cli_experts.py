"""This file is about the command `epidote experts`: where they lie, and how even that is."""

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from epidote_workers.cli_fleet import DEFAULT_URL, Key, Url, ask_service

COLUMNS = ("worker", "ranks", "placement", "target", "state", "imbalance", "moves")
CUT = "every expert is cut over all ranks of its worker: none is anywhere (or the model has none)"


def experts(
    url: Url = DEFAULT_URL,
    api_key: Key = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="With every placement and the tokens of every expert.")
    ] = False,
) -> None:
    """Show where experts lie on each worker's ranks, and whether they move.

    Example: epidote experts --json
    """
    seen = ask_service(url, api_key, "GET", "/admin/experts")
    if as_json:
        typer.echo(json.dumps(seen))
    elif not seen["workers"]:
        typer.echo(CUT)
    elif sys.stdout.isatty():
        table = Table(box=None, pad_edge=False)
        for column in COLUMNS:
            table.add_column(column, justify="right" if column in COLUMNS[5:] else "left")
        for row in _rows(seen):
            table.add_row(*row)
        Console().print(table)
    else:
        typer.echo("\n".join("\t".join(row) for row in (COLUMNS, *_rows(seen))))


def _rows(seen: dict[str, Any]) -> list[tuple[str, ...]]:
    return [
        (
            worker["worker_id"],
            str(worker["ranks"]),
            worker["placement"],
            worker["target"] or "-",
            _state(worker),
            f"{worker['imbalance']:.2f}",
            str(worker["num_moves"]),
        )
        for worker in seen["workers"]
    ]


def _state(worker: dict[str, Any]) -> str:
    if worker["refusal"]:
        return f"refused: {worker['refusal']}"
    return "moving" if worker["is_moving"] else "placed"
