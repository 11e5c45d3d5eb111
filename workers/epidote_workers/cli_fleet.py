"""This file is about the commands that watch and change a running service."""

import json
import sys
import time
from typing import Annotated, Any, NoReturn

import httpx
import typer
from rich.console import Console
from rich.live import Live

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_workers.assignment import parse_counts
from epidote_workers.fleet_table import fleet_lines, fleet_table
from epidote_workers.service_client import ServiceUnreachable, call, client

Url = Annotated[str, typer.Option(help="The service.", envvar="EPIDOTE_URL")]
Key = Annotated[
    str, typer.Option("--api-key", help="Admin key of the service.", envvar="EPIDOTE_API_KEY")
]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output.")]
DEFAULT_URL = "http://127.0.0.1:8000"
EXIT_USAGE, EXIT_FAILED, EXIT_UNREACHABLE = 2, 1, 3

roles_app = typer.Typer(no_args_is_help=True, help="Show or change who does what.")


def ask_service(url: str, key: str, method: str, path: str, body: Any = None) -> Any:
    """One call; failures end the command with a line on stderr and an exit code."""
    try:
        with client(url, key) as http:
            return call(http, method, path, body)
    except (EpidoteError, httpx.InvalidURL) as error:
        fail(error)


def fail(error: Exception) -> NoReturn:
    """End the command with one line on stderr and the exit code of the kind of error."""
    typer.echo(f"error: {error}", err=True)
    unreachable = isinstance(error, ServiceUnreachable)
    usage = isinstance(error, InvalidRequest | httpx.InvalidURL)
    raise typer.Exit(EXIT_UNREACHABLE if unreachable else EXIT_USAGE if usage else EXIT_FAILED)


def status(
    url: Url = DEFAULT_URL,
    api_key: Key = "",
    watch: Annotated[bool, typer.Option("--watch", help="Refresh until Ctrl-C.")] = False,
    interval: Annotated[float, typer.Option(min=0.1, help="Seconds between two looks.")] = 1.0,
    as_json: Json = False,
) -> None:
    """Show the fleet: roles, states, queues, KV use, latencies.

    Example: epidote status --watch
    """
    if not watch:
        show(ask_service(url, api_key, "GET", "/admin/fleet"), as_json)
        return
    try:
        if as_json or not sys.stdout.isatty():
            while True:
                show(ask_service(url, api_key, "GET", "/admin/fleet"), as_json)
                sys.stdout.flush()
                time.sleep(interval)
        first = fleet_table(ask_service(url, api_key, "GET", "/admin/fleet"))
        with Live(first, auto_refresh=False, screen=False) as live:
            while True:
                time.sleep(interval)
                fleet = ask_service(url, api_key, "GET", "/admin/fleet")
                live.update(fleet_table(fleet), refresh=True)
    except KeyboardInterrupt:
        return


def show(fleet: dict[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(fleet))
    elif sys.stdout.isatty():
        Console().print(fleet_table(fleet))
    else:
        typer.echo("\n".join(fleet_lines(fleet)))


@roles_app.command("get")
def get_roles(url: Url = DEFAULT_URL, api_key: Key = "", as_json: Json = False) -> None:
    """Show how many workers have each role.

    Example: epidote roles get
    """
    counts = ask_service(url, api_key, "GET", "/admin/roles")
    typer.echo(json.dumps(counts) if as_json else _counted(counts))


@roles_app.command("set")
def set_roles(
    roles: Annotated[str, typer.Argument(help="Counts that add up to the number of workers.")],
    url: Url = DEFAULT_URL,
    api_key: Key = "",
    as_json: Json = False,
) -> None:
    """Switch as few workers as possible, while requests run.

    Example: epidote roles set encode=1,prefill=2,decode=1
    """
    try:
        counts = parse_counts(roles)
    except InvalidRequest as error:
        fail(error)
    answer = ask_service(
        url, api_key, "PUT", "/admin/roles", {r.value: n for r, n in counts.items()}
    )
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        for outcome in answer["outcomes"]:
            typer.echo(outcome_line(outcome))
        typer.echo(_counted(answer["roles"]))
    if not all(outcome["ok"] for outcome in answer["outcomes"]):
        raise typer.Exit(EXIT_FAILED)


def outcome_line(outcome: dict[str, Any]) -> str:
    """One switch, in milliseconds."""
    times = ", ".join(
        f"{name} {outcome[f'{name}_s'] * 1e3:.0f} ms" for name in ("drain", "switch", "verify")
    )
    end = times if outcome["ok"] else f"NOT switched: {outcome['message']}"
    return f"{outcome['worker_id']}: {outcome['from_role']} -> {outcome['to_role']}, {end}"


def _counted(counts: dict[str, int]) -> str:
    return ",".join(f"{role}={number}" for role, number in counts.items() if number) or "no workers"


def scale(
    num_workers: Annotated[int, typer.Argument(min=1, help="Workers wanted.")],
    url: Url = DEFAULT_URL,
    api_key: Key = "",
    as_json: Json = False,
) -> None:
    """Ask for more or fewer workers, in the same proportion of roles; nothing is interrupted.

    Example: epidote scale 6
    """
    answer = ask_service(url, api_key, "POST", "/admin/scale", {"num_workers": num_workers})
    if as_json:
        typer.echo(json.dumps(answer))
    else:
        typer.echo(f"{answer['num_current']} workers now, {answer['num_workers']} wanted")
