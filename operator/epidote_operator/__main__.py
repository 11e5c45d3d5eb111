"""This file is about the command line of the operator: run, local, explain."""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from epidote_core.errors import EpidoteError
from epidote_operator.act.executor import describe
from epidote_operator.explaining import explain_in_cluster, explain_locally
from epidote_operator.local import LocalOperator, LocalTick
from epidote_operator.service_document import ServiceDocument, read_service
from epidote_operator.settings import InvalidSettings, Settings
from epidote_operator.showing import as_json, line_of, plan_json, plan_text, status_json
from epidote_operator.spec.invalid import InvalidSpec

EXIT_USAGE, EXIT_UNREACHABLE = 2, 3
app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="The operator of Epidote: fleets of encode, prefill and decode workers that keep an SLO.",
)

File = Annotated[Path, typer.Argument(help="YAML file with a MultimodalService.")]
Gateway = Annotated[str, typer.Option(help="Address of the local service's gateway.")]
AdminKey = Annotated[
    str | None,
    typer.Option(help="Key of /admin.", envvar="EPIDOTE_GATEWAY_ADMIN_KEY", show_envvar=True),
]


@app.command()
def local(
    file: File,
    gateway: Gateway = "http://127.0.0.1:8000",
    admin_key: AdminKey = None,
    ticks: Annotated[int | None, typer.Option(min=1, help="Stop after so many ticks.")] = None,
    json: Annotated[bool, typer.Option(help="One status a line, as the resource has it.")] = False,
) -> None:
    """Run the control loop on a local `epidote serve`: no Kubernetes.

    Example: epidote-operator local crds/samples/demo.yaml --gateway http://127.0.0.1:8000
    """
    document = _read(file)

    def show(shown: LocalTick) -> None:
        typer.echo(status_json(shown.status) if json else line_of(shown))
        sys.stdout.flush()

    async def run() -> None:
        async with LocalOperator.at(gateway, admin_key, document.spec) as operator:
            await operator.run(show, clock=time.time, ticks=ticks)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


@app.command()
def explain(
    name: Annotated[str, typer.Argument(help="Name of the MultimodalService.")],
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", help="Default: the context's.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Local mode: the file with the service.")
    ] = None,
    gateway: Gateway = "http://127.0.0.1:8000",
    admin_key: AdminKey = None,
    window: Annotated[float, typer.Option(min=0.6, help="Seconds to watch traffic for.")] = 3.0,
    json: Annotated[bool, typer.Option(help="For machines.")] = False,
) -> None:
    """Print the next decision and why, without acting on it.

    Example: epidote-operator explain demo -n serving
    """
    remark = ""
    try:
        if file is None:
            prometheus = Settings.from_env(os.environ).prometheus_url
            plan, remark = asyncio.run(
                explain_in_cluster(name, namespace, window_s=window, prometheus_url=prometheus)
            )
        else:
            spec = _read(file, name).spec
            plan = asyncio.run(explain_locally(spec, gateway, admin_key, window_s=window))
    except (InvalidSettings, InvalidSpec) as error:
        _fail(str(error), EXIT_USAGE)
    except EpidoteError as error:
        _fail(str(error), EXIT_UNREACHABLE)
    if remark:
        typer.echo(f"warning: {remark}", err=True)
    actions = tuple(describe(action) for action in plan.actions)
    typer.echo(
        as_json({**plan_json(plan), "actions": list(actions)}) if json else plan_text(plan, actions)
    )


@app.command()
def run() -> None:
    """Run the operator in (or against) a cluster, as `EPIDOTE_OPERATOR_*` says.

    Example: EPIDOTE_OPERATOR_NAMESPACES=serving epidote-operator run
    """
    from epidote_operator.handlers.running import run_operator

    try:
        settings = Settings.from_env(os.environ)
    except InvalidSettings as error:
        _fail(str(error), EXIT_USAGE)
    try:
        run_operator(settings)
    except EpidoteError as error:
        _fail(str(error), EXIT_UNREACHABLE)


def _read(file: Path, name: str | None = None) -> ServiceDocument:
    try:
        return read_service(file, name)
    except (EpidoteError, ValueError) as error:
        _fail(str(error), EXIT_USAGE)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    main()
