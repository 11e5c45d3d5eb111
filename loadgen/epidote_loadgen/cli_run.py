"""This file is about `epidote-loadgen run` and `replay`: one run, shown, judged and written."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from epidote_loadgen import cli_flags as flag
from epidote_loadgen.cli_results import STDOUT, OutputPaths, shown, write_outputs
from epidote_loadgen.cli_session import (
    check_writable,
    exit_codes,
    interruptible,
    say_plan,
    warn_of_too_few,
)
from epidote_loadgen.cli_values import Flags, run_file
from epidote_loadgen.config.building import build_plan
from epidote_loadgen.config.model_discovery import ModelUnknown
from epidote_loadgen.config.run_file import OutputSection
from epidote_loadgen.live.view import LiveView
from epidote_loadgen.outputs.saving import Files
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress
from epidote_loadgen.runner.never_sent import never_sent
from epidote_loadgen.runner.ray_parts import RayLauncher
from epidote_loadgen.runner.running import TargetUnreachable
from epidote_loadgen.runner.running import run as carry_out
from epidote_loadgen.traces.reading import TraceFormat
from epidote_loadgen.verdict.verdict import ExitCode, judge, never_reached
from epidote_loadgen.watch.building import build_watcher


def run(
    config: flag.Config = None,
    target: flag.Url = "",
    model: flag.Model = "",
    rps: Annotated[
        float | None, typer.Option(min=0.0, help="Requests a second. (default: 10)")
    ] = None,
    users: Annotated[int | None, typer.Option(min=1, help="Closed loop of so many.")] = None,
    duration: flag.Duration = None,
    requests: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    prompt_tokens: flag.PromptTokens = None,
    output_tokens: flag.OutputTokens = None,
    images: flag.Images = None,
    questions: flag.Questions = False,
    ttft_ms: flag.TtftMs = None,
    tpot_ms: flag.TpotMs = None,
    itl_ms: flag.ItlMs = None,
    e2e_ms: flag.E2eMs = None,
    ratio: flag.Ratio = None,
    seed: flag.Seed = None,
    processes: flag.Processes = None,
    ray: flag.Ray = "",
    max_in_flight: flag.MaxInFlight = None,
    max_connections: flag.MaxConnections = None,
    watch: flag.Watch = "",
    sets: flag.Sets = None,
    json_out: flag.JsonOut = None,
    csv_out: flag.CsvOut = None,
    parquet_out: flag.ParquetOut = None,
    junit_out: flag.JunitOut = None,
    html_out: flag.HtmlOut = None,
    verdict_file: flag.VerdictOut = None,
    quiet: flag.Quiet = False,
) -> None:
    """Send a load and judge the service by it. Exit code 0: every promise was kept.

    The API key is taken from EPIDOTE_LOADGEN_API_KEY.

    Example: epidote-loadgen run -t http://127.0.0.1:8000 --rps 20 --duration 60 --ttft-ms 1000
    """
    given = Flags.of(locals())
    files = Files(json=json_out, csv=csv_out, parquet=parquet_out, junit=junit_out, html=html_out)
    paths = OutputPaths(files=files, verdict=verdict_file)
    with exit_codes():
        code = run_and_tell(config, given, paths, quiet=quiet, ray=ray)
    raise typer.Exit(code)


def replay(
    trace: Annotated[Path, typer.Argument(help="Trace: Azure, ServeGen, Mooncake or own.")],
    target: flag.Url,
    model: flag.Model = "",
    trace_format: Annotated[
        TraceFormat, typer.Option("--format", help="Told from the file, if not given.")
    ] = TraceFormat.AUTO,
    speed: Annotated[float, typer.Option(help="60: an hour in a minute.")] = 1.0,
    start: Annotated[float, typer.Option(min=0.0, help="Seconds into the trace.")] = 0.0,
    end: Annotated[float | None, typer.Option(help="Seconds into the trace.")] = None,
    requests: Annotated[int | None, typer.Option(min=1, help="End after so many.")] = None,
    max_bad_rows: Annotated[int, typer.Option(min=0, help="Skip so many bad rows.")] = 0,
    ttft_ms: flag.TtftMs = None,
    tpot_ms: flag.TpotMs = None,
    itl_ms: flag.ItlMs = None,
    e2e_ms: flag.E2eMs = None,
    ratio: flag.Ratio = None,
    seed: flag.Seed = None,
    processes: flag.Processes = None,
    ray: flag.Ray = "",
    max_in_flight: flag.MaxInFlight = None,
    max_connections: flag.MaxConnections = None,
    watch: flag.Watch = "",
    sets: flag.Sets = None,
    json_out: flag.JsonOut = None,
    csv_out: flag.CsvOut = None,
    parquet_out: flag.ParquetOut = None,
    junit_out: flag.JunitOut = None,
    html_out: flag.HtmlOut = None,
    verdict_file: flag.VerdictOut = None,
    quiet: flag.Quiet = False,
) -> None:
    """Send the requests of a recorded trace, at its times and with its sizes.

    Example: epidote-loadgen replay conversations.csv -t http://127.0.0.1:8000 --speed 60
    """
    given = Flags.of(locals(), requests=None)
    arrivals = {
        "kind": "trace",
        "path": str(trace.absolute()),
        "format": trace_format.value,
        "speed": speed,
        "start_s": start,
        "end_s": end,
        "max_requests": requests,
        "max_bad_rows": max_bad_rows,
    }
    given = replace(given, arrivals=arrivals)
    files = Files(json=json_out, csv=csv_out, parquet=parquet_out, junit=junit_out, html=html_out)
    paths = OutputPaths(files=files, verdict=verdict_file)
    with exit_codes():
        code = run_and_tell(None, given, paths, quiet=quiet, ray=ray)
    raise typer.Exit(code)


def run_and_tell(
    config: Path | None, given: Flags, paths: OutputPaths, *, quiet: bool, ray: str
) -> int:
    """One run from flags to exit code."""
    file = run_file(config, given)
    base = config.parent if config is not None else Path()
    paths = _completed(paths, file.output)
    check_writable(paths.by_flag())
    try:
        plan = build_plan(file, base=base)
    except ModelUnknown as error:
        unnamed = build_plan(file, base=base, ask_model=lambda target: "")
        return _tell_unreachable(unnamed, str(error), paths)
    watcher = build_watcher(file.watch, base=base)
    say_plan(plan, quiet=quiet)
    warn_of_too_few(plan)
    with interruptible() as interrupt, progress_view(plan, quiet=quiet) as view:
        try:
            result = carry_out(
                plan,
                on_progress=view,
                watcher=watcher,
                interrupt=interrupt,
                launcher=RayLauncher(ray) if ray else None,
            )
        except TargetUnreachable as error:
            return _tell_unreachable(plan, str(error), paths)
        verdict = judge(
            result.records,
            plan.slo,
            void_reason=result.void_reason,
            interrupted=result.interrupted,
            confidence=plan.confidence,
        )
        written = write_outputs(result, plan.slo, verdict, paths)
        on_stdout = paths.files.json == STDOUT
        if not (quiet and on_stdout):
            written &= shown(result, plan.slo, verdict, on_stderr=on_stdout)
    return int(verdict.exit_code) if written else int(verdict.exit_code) or int(ExitCode.UNDECIDED)


def _tell_unreachable(plan: RunPlan, why: str, paths: OutputPaths) -> int:
    """The files of a run that never began say why, as CI shows files and not stderr."""
    typer.echo(f"error: target unreachable: {why}", err=True)
    write_outputs(never_sent(plan), plan.slo, never_reached(plan.slo, why), paths)
    return int(ExitCode.UNREACHABLE)


@contextlib.contextmanager
def progress_view(plan: RunPlan, *, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    """What to call with each progress."""
    if quiet:
        yield lambda progress: None
        return
    view = LiveView(plan)
    is_gone = False

    def update(progress: Progress) -> None:
        nonlocal is_gone
        try:
            if not is_gone:
                view.update(progress)
        except OSError:  # a terminal that hung up, a full disk: no reason to lose the run
            is_gone = True

    view.__enter__()
    try:
        yield update
    finally:
        with contextlib.suppress(OSError):
            view.__exit__(None, None, None)


def _completed(paths: OutputPaths, section: OutputSection) -> OutputPaths:
    """Flags before the file's own section."""
    given = paths.files
    files = Files(
        json=given.json or section.json_,
        csv=given.csv or section.csv,
        parquet=given.parquet or section.parquet,
        junit=given.junit or section.junit,
        html=given.html or section.html,
    )
    return OutputPaths(files=files, verdict=paths.verdict)
