"""This file is about what every command that sends requests shares: plans, signals, exit codes."""

import contextlib
import json
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import typer

from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.model_discovery import ModelUnknown
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.runner.running import Interrupt, RunFailed, TargetUnreachable
from epidote_loadgen.verdict.foresight import too_few
from epidote_loadgen.verdict.verdict import ExitCode

# Windows knows no SIGHUP.
_HEARD = (signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else ()))


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Turn what can go wrong before or within a run into a line on stderr and an exit code."""
    try:
        yield
    except (TargetUnreachable, ModelUnknown) as error:
        typer.echo(f"error: target unreachable: {error}", err=True)
        raise typer.Exit(ExitCode.UNREACHABLE) from error
    except RunFailed as error:
        typer.echo(f"error: {error}", err=True)
        code = ExitCode.USAGE if error.is_usage else ExitCode.UNDECIDED
        raise typer.Exit(code) from error
    except ValueError as error:  # InvalidConfig, InvalidTarget, TraceError, UnreadableRun
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(ExitCode.USAGE) from error


@contextlib.contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Within it the first Ctrl-C, SIGTERM or SIGHUP ends sending, the second waits for nothing
    more, and the third is what it is everywhere.

    Results are judged and written within it too: then the first two are heard, and change nothing.
    A SIGHUP that is ignored already (nohup) stays so.
    """
    interrupt = Interrupt()

    def handle(number: int, frame: FrameType | None) -> None:
        if interrupt.stop.is_set():
            interrupt.abandon.set()
            for heard, handler in before.items():
                signal.signal(heard, handler)
        else:
            interrupt.stop.set()
            with contextlib.suppress(OSError):  # a terminal that hung up
                typer.echo("stopping; what was measured is kept (again: at once)", err=True)

    before: dict[signal.Signals, Any] = {}
    for number in _HEARD:
        if number == signal.SIGINT or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, handle)
    try:
        yield interrupt
    finally:
        for heard, handler in before.items():
            signal.signal(heard, handler)


def check_writable(paths: dict[str, Path | None]) -> None:
    """Find out before a run, not after it, that a result could not be written.

    Raises:
        InvalidConfig: naming the flag.
    """
    taken: dict[Path, str] = {}
    for flag, path in paths.items():
        if path is None or str(path) == "-":
            continue
        if path.is_file() or not path.exists():  # a device may take several
            other = taken.setdefault(path.resolve(), flag)
            if other != flag:
                raise InvalidConfig(f"{flag}: {path} is what {other} is written to; want another")
        if path.is_dir():
            raise InvalidConfig(f"{flag}: {path} is a folder, want a file")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            existed = path.exists()
            with path.open("ab"):
                pass
            if not existed:
                path.unlink()
        except OSError as error:
            raise InvalidConfig(f"{flag}: can't write {path}: {error.strerror}") from error


def say_plan(plan: RunPlan, *, quiet: bool) -> None:
    """Every run tells its seed and whole configuration, on stderr; the key is not part of it.

    A quiet one leaves that to its files, and only warns.
    """
    if not quiet:
        told = json.dumps(_told(plan.config))
        typer.echo(f"configuration {plan.config_digest}: {told}", err=True)


def warn_of_too_few(plan: RunPlan) -> None:
    """On stderr, before minutes are spent on a plan that has no promises or can't settle them."""
    if not plan.slo.classes:
        typer.echo(
            "warning: slo: nothing is promised, so the run will be inconclusive (exit code 4)",
            err=True,
        )
    expected = plan.arrivals.expected_by_class()
    for line in too_few(expected or {}, plan.slo, confidence=plan.confidence) if expected else ():
        typer.echo(f"warning: {line}", err=True)


def _told(value: Any) -> Any:
    """Without what is empty or not given, so that a person can read it."""
    if isinstance(value, Mapping):
        return {k: _told(v) for k, v in value.items() if v not in (None, "", {}, [])}
    return [_told(item) for item in value] if isinstance(value, list) else value
