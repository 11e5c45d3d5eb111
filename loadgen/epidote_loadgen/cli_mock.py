"""This file is about `epidote-loadgen mock-server`: a server to try loads, and gates, against."""

import math
import ssl
import sys
from pathlib import Path
from typing import Annotated

import typer

from epidote_loadgen.cli_session import exit_codes
from epidote_loadgen.mock_server.faults import Fault, FaultMix, parse_fault
from epidote_loadgen.mock_server.law import LatencyLaw, Stall
from epidote_loadgen.mock_server.process import serve
from epidote_loadgen.mock_server.server import MockSettings
from epidote_loadgen.verdict.verdict import ExitCode


def mock_server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    unix: Annotated[Path | None, typer.Option(help="Listen on this unix socket instead.")] = None,
    ttft: Annotated[float, typer.Option(min=0.0, help="Seconds to the first token.")] = 0.05,
    itl: Annotated[float, typer.Option(min=0.0, help="Seconds between tokens.")] = 0.02,
    image: Annotated[float, typer.Option(min=0.0, help="Seconds more an image.")] = 0.0,
    jitter: Annotated[
        float, typer.Option(min=0.0, help="Standard deviation of a latency's logarithm.")
    ] = 0.0,
    capacity: Annotated[
        float | None, typer.Option(min=0.001, help="Requests/s; more queue up. (default: no limit)")
    ] = None,
    tokens: Annotated[int, typer.Option(min=1, help="Longest reply.")] = 16,
    stall: Annotated[
        list[str] | None,
        typer.Option(help="AT:FOR, seconds from the first request.", metavar="AT:FOR"),
    ] = None,
    fault: Annotated[
        list[str] | None,
        typer.Option(help=f"A share of the requests: {', '.join(Fault)}.", metavar="NAME=SHARE"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of jitter and faults.")] = 0,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM; serve HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM, if not in the former.")] = None,
) -> None:
    """Serve an OpenAI-compatible API that obeys a known latency law, until Ctrl-C.

    GET /mock/truth tells what it served and when; POST /mock/reset forgets it.

    Example: epidote-loadgen mock-server --ttft 0.05 --capacity 50 --stall 12:5 --fault reset=0.01
    """
    with exit_codes():
        law = LatencyLaw(
            ttft_s=ttft,
            itl_s=itl,
            image_s=image,
            jitter=jitter,
            capacity_rps=math.inf if capacity is None else capacity,
            stalls=tuple(_stall(text) for text in stall or ()),
            seed=seed,
        )
        faults = FaultMix(dict(parse_fault(text) for text in fault or ()), seed=seed)
    settings = MockSettings(
        law=law,
        faults=faults,
        num_tokens=tokens,
        host=host,
        port=port,
        unix_path=str(unix or ""),
        tls_cert=str(tls_cert or ""),
        tls_key=str(tls_key or ""),
    )
    try:
        serve(settings, _announce)
    except OSError as error:  # ssl.SSLError is one
        where = str(error.filename or unix or f"{host}:{port}")
        if tls_cert and isinstance(error, ssl.SSLError | FileNotFoundError):
            where = f"--tls-cert {tls_cert}"
        typer.echo(f"error: can't listen: {where}: {error.strerror or error}", err=True)
        raise typer.Exit(ExitCode.USAGE) from error


def _announce(url: str) -> None:
    """The one line on stdout, at once: scripts wait for it."""
    typer.echo(f"the mock server is ready: {url}")
    sys.stdout.flush()


def _stall(text: str) -> Stall:
    at_s, _, duration_s = text.partition(":")
    try:
        return Stall(float(at_s), float(duration_s))
    except ValueError:
        raise ValueError(f"--stall: want AT:FOR in seconds, such as 12:5, got {text!r}") from None
