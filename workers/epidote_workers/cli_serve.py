"""This file is about `epidote serve`: from flags to a running service, and its end."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import httpx
import typer
from rich.console import Console

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_core.roles import Role, Stage
from epidote_gateway.settings import GatewaySettings, InvalidSettings
from epidote_workers.assignment import (
    EVERY_STAGE,
    TEXT_STAGES,
    check_counts,
    format_counts,
    parse_counts,
    resize,
)
from epidote_workers.cache_settings import with_cache
from epidote_workers.port_reservation import PortReservation, PortTaken
from epidote_workers.service_settings import Ingress, ReplicaSettings, ServiceSettings
from epidote_workers.supervisor import Progress, StartFailed, Supervisor

DEFAULT_SHAPE = {Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 2}
TEXT_SHAPE = {Role.PREFILL: 1, Role.DECODE: 3}
READY_S = 30.0  # from all processes up to every stage routable
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def serve(
    model: Annotated[
        str, typer.Option(help="demo, smollm2, a Hugging Face directory, or a hub id.")
    ] = "demo",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of workers. [default: as --roles; 4]")
    ] = None,
    roles: Annotated[
        str, typer.Option(help="Who does what: encode=1,prefill=1,decode=2, or all=4.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that clients must send; may be given several times. The first also opens "
            "/admin, unless EPIDOTE_GATEWAY_ADMIN_KEY is set.",
            envvar="EPIDOTE_API_KEY",
        ),
    ] = None,
    dtype: Annotated[
        str, typer.Option(help="auto (as stored), float32, bfloat16 or float16.")
    ] = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    kv_blocks: Annotated[
        int | None, typer.Option(min=1, help="KV blocks a worker. [default: from free memory]")
    ] = None,
    max_model_len: Annotated[
        int | None, typer.Option(min=1, help="Longest sequence in tokens. [default: the model's]")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads a worker computes with.")] = 1,
    gateways: Annotated[int, typer.Option(min=1, help="HTTP processes sharing the port.")] = 1,
    ingress: Annotated[
        Ingress, typer.Option(help="own: the gateway listens. serve: behind Ray Serve's proxy.")
    ] = Ingress.OWN,
    cache_policy: Annotated[
        Path | None, typer.Option(help="Response cache: a CachePolicy file, followed live.")
    ] = None,
    cache_store: Annotated[
        str, typer.Option(help="sqlite:PATH or redis://HOST:PORT/DB. [default: in ~/.cache]")
    ] = "",
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard too.")] = False,
    keep_logs: Annotated[bool, typer.Option(help="Keep Ray's directory with all logs.")] = False,
) -> None:
    """Serve a model on this machine until Ctrl-C.

    Example: epidote serve --model demo --roles encode=1,prefill=1,decode=2 --port 8000
    """
    try:
        stages = model_stages(model, max_model_len)
        shape = split(roles, workers, stages)
        settings = ServiceSettings(
            worker=ReplicaSettings(
                model=model,
                dtype=choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16")),
                device=choice("device", device, ("auto", "cpu", "cuda")),
                num_kv_blocks=kv_blocks,
                max_model_len=max_model_len,
                num_threads=threads,
            ),
            shape=shape,
            stages=stages,
            host=host,
            ingress=ingress,
            num_gateways=gateways,
            gateway=with_cache(
                gateway_settings(api_key or []),
                policy=cache_policy,
                store=cache_store,
                model=model,
                weights=model_weights(model),
            ),
        )
        reservation = PortReservation(host, port)
    except PortTaken as error:
        _fail(f"--port: {error}; stop the other one or give another port (0: any free)")
    except (EpidoteError, ValueError) as error:
        _fail(str(error), EXIT_USAGE)
    with reservation:
        settings = replace(settings, port=reservation.port)
        raise typer.Exit(run(settings, dashboard=dashboard, keep_logs=keep_logs))


def split(roles: str, workers: int | None, stages: tuple[Stage, ...]) -> Mapping[Role, int]:
    """The counts that `--roles` and `--workers` ask for together.

    Raises:
        InvalidRequest: naming the flags.
    """
    if not roles:
        shape = DEFAULT_SHAPE if Stage.ENCODE in stages else TEXT_SHAPE
        return resize(shape, workers or sum(shape.values()))
    try:
        counts = parse_counts(roles)
        check_counts(counts, sum(counts.values()) if workers is None else workers, stages)
    except InvalidRequest as error:
        flags = "--roles" if workers is None else f"--roles with --workers {workers}"
        message = str(error).removeprefix("roles: ")
        raise InvalidRequest(f"{flags}: {message}", "roles") from error
    return counts


def choice(flag: str, given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise InvalidRequest(f"--{flag}: must be one of {', '.join(known)}, got {given!r}", flag)
    return given


def gateway_settings(api_keys: list[str]) -> GatewaySettings:
    """The environment's settings, with the keys of the command line before all."""
    settings = GatewaySettings.from_env()
    if not api_keys:
        return settings
    if not all(api_keys):
        raise InvalidSettings("--api-key: must not be empty")
    keys = tuple((f"key-{number}", key) for number, key in enumerate(api_keys))
    return replace(settings, api_keys=keys, admin_key=settings.admin_key or api_keys[0])


def model_stages(model: str, max_model_len: int | None = None) -> tuple[Stage, ...]:
    """The stages that the model has. Fails now, clearly, rather than in every worker.

    Raises:
        InvalidModel
        InvalidRequest: the model was not made for so long sequences.
    """
    from epidote_engine.config import load_model_spec

    spec = load_model_spec(model)
    if max_model_len is not None and max_model_len > spec.max_positions:
        raise InvalidRequest(
            f"--max-model-len: {model} takes at most {spec.max_positions} tokens, "
            f"got {max_model_len}",
            "max_model_len",
        )
    return tuple(TEXT_STAGES if spec.vision is None else EVERY_STAGE)


def model_weights(model: str) -> Path:
    """Where the model's files lie; raises as `model_stages`."""
    from epidote_engine.config import load_model_spec

    return load_model_spec(model).path


def run(settings: ServiceSettings, *, dashboard: bool, keep_logs: bool) -> int:
    """Start, wait for the end, stop; returns the exit code."""
    started_s = time.monotonic()
    stop, hurry = stop_on_signals()
    supervisor = Supervisor(keep_logs=keep_logs)
    if keep_logs:
        _note(f"logs: {supervisor.directory}")
    code = EXIT_INTERRUPTED
    try:
        with progress_on_stderr() as progress:
            supervisor.start(settings, dashboard=dashboard, progress=progress, stop=stop)
            if not stop.is_set():
                progress("waiting for every stage")
                wait_until_ready(settings, stop)
        if not stop.is_set():
            _say_ready(settings, time.monotonic() - started_s)
            code = 0
        while not stop.wait(0.5):
            supervisor.check()
    except StartFailed as error:
        _note(f"error: {error}")
        code = EXIT_FAILED
    finally:
        _note("stopping")
        supervisor.stop(hurry)
    return code


def stop_on_signals() -> tuple[threading.Event, threading.Event]:
    """Events that the first and the second Ctrl-C or SIGTERM set."""
    stop, hurry = threading.Event(), threading.Event()

    def handle(number: int, frame: FrameType | None) -> None:
        (hurry if stop.is_set() else stop).set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop, hurry


@contextlib.contextmanager
def progress_on_stderr() -> Iterator[Progress]:
    """A spinner on a terminal, else one line a step."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _note
        return
    with console.status("starting") as status:
        yield status.update


def wait_until_ready(settings: ServiceSettings, stop: threading.Event) -> None:
    """Return when /readyz says that every stage has a worker, or `stop` is set.

    Raises:
        StartFailed: not within `READY_S`; the message has the gateway's answer.
    """
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)
    url, answer = f"http://{host}:{settings.port}/readyz", "no answer"
    deadline_s = time.monotonic() + READY_S
    with httpx.Client(timeout=5.0, trust_env=False) as http:
        while time.monotonic() < deadline_s:
            if stop.is_set():
                return
            try:
                response = http.get(url)
                if response.is_success:
                    return
                answer = response.text
            except httpx.HTTPError as error:
                answer = repr(error)
            time.sleep(0.1)
    raise StartFailed(f"not every stage was served within {READY_S:g} s: {answer}")


def _say_ready(settings: ServiceSettings, took_s: float) -> None:
    """The one line on stdout."""
    typer.echo(
        f"epidote is ready: {settings.worker.model} at http://{settings.host}:{settings.port}/v1 "
        f"({format_counts(settings.shape)}; {took_s:.1f} s). Ctrl-C stops it."
    )
    sys.stdout.flush()


def _note(message: str) -> None:
    typer.echo(message, err=True)


def _fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    _note(f"error: {message}")
    raise typer.Exit(code)
