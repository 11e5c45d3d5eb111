"""This file is about a service from its start to its end, as a command of the foreground."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import NoReturn

import httpx
import typer
from rich.console import Console

from epidote_workers.assignment import format_counts
from epidote_workers.service_settings import ServiceSettings
from epidote_workers.supervisor import Progress, StartFailed, Supervisor

READY_S = 30.0  # from all processes up to every stage routable
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def run(settings: ServiceSettings, *, dashboard: bool, keep_logs: bool) -> int:
    """Start, wait for the end, stop; returns the exit code."""
    started_s = time.monotonic()
    stop, hurry = stop_on_signals()
    supervisor = Supervisor(keep_logs=keep_logs)
    if keep_logs:
        note(f"logs: {supervisor.directory}")
    code = EXIT_INTERRUPTED
    try:
        with progress_on_stderr() as progress:
            supervisor.start(settings, dashboard=dashboard, progress=progress, stop=stop)
            if not stop.is_set() and not settings.ray_host:
                progress("waiting for every stage")
                wait_until_ready(settings, stop)
        if not stop.is_set():
            say_ready(settings, time.monotonic() - started_s)
            code = 0
        while not stop.wait(0.5):
            supervisor.check()
    except StartFailed as error:
        note(f"error: {error}")
        code = EXIT_FAILED
    finally:
        note("stopping")
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
        yield note
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


def say_ready(settings: ServiceSettings, took_s: float) -> None:
    """The one line on stdout."""
    url = f"http://{settings.host}:{settings.port}/v1"
    if settings.ray_host:
        at = f" at {url}" if settings.num_gateways else ", without gateways"
        typer.echo(
            f"epidote head is up: {settings.worker.model}{at}, {settings.num_workers} workers may"
            f" join: epidote worker --head {settings.ray_host}:{settings.ray_port}"
        )
    else:
        typer.echo(
            f"epidote is ready: {settings.worker.model} at {url} "
            f"({format_counts(settings.shape)}; {took_s:.1f} s). Ctrl-C stops it."
        )
    sys.stdout.flush()


def note(message: str) -> None:
    typer.echo(message, err=True)


def fail(message: str, code: int = EXIT_FAILED) -> NoReturn:
    note(f"error: {message}")
    raise typer.Exit(code)
