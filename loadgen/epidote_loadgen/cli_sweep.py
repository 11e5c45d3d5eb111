"""This file is about `epidote-loadgen sweep`: the highest rate at which the promises hold."""

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from epidote_loadgen import cli_flags as flag
from epidote_loadgen.cli_results import STDOUT
from epidote_loadgen.cli_session import check_writable, exit_codes, interruptible, say_plan
from epidote_loadgen.cli_values import Flags, run_file
from epidote_loadgen.config.building import build_plan
from epidote_loadgen.outputs.writing import write_text
from epidote_loadgen.search.sweep import Probe, SweepResult, SweepSettings
from epidote_loadgen.search.sweep import sweep as search
from epidote_loadgen.verdict.verdict import ExitCode

SCHEMA = "epidote-loadgen.sweep/1"


def sweep(
    config: flag.Config = None,
    target: flag.Url = "",
    model: flag.Model = "",
    start_rps: Annotated[float, typer.Option(min=0.001, help="First rate.")] = 4.0,
    min_rps: Annotated[float, typer.Option(min=0.001, help="Give up below.")] = 0.01,
    max_rps: Annotated[float | None, typer.Option(help="Stop above. (default: no limit)")] = None,
    tolerance: Annotated[float, typer.Option(help="Width of the last bracket.")] = 0.05,
    probe: Annotated[float, typer.Option(min=0.1, help="Seconds of each probe.")] = 30.0,
    max_cool_down: Annotated[
        float, typer.Option(min=0.0, help="Longest wait for the service to recover, seconds.")
    ] = 120.0,
    at_least: Annotated[
        float | None, typer.Option(help="Exit code 1 if the found rate is lower.")
    ] = None,
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
    sets: flag.Sets = None,
    json_out: flag.JsonOut = None,
    quiet: flag.Quiet = False,
) -> None:
    """Search the highest rate at which every promise holds (max_goodput_rps).

    Exit code 0: it was found. 1: not even the lowest rate held, or less than --at-least.
    4: interrupted, or the client was the bottleneck.

    Example: epidote-loadgen sweep -t http://127.0.0.1:8000 --ttft-ms 1000 --probe 30
    """
    given = Flags.of(locals())
    with exit_codes():
        file = run_file(config, given)
        check_writable({"--json": json_out})
        plan = build_plan(file, base=config.parent if config is not None else Path())
        settings = SweepSettings(
            start_rps=start_rps,
            min_rps=min(min_rps, start_rps),
            max_rps=math.inf if max_rps is None else max_rps,
            tolerance=tolerance,
            probe_s=probe,
            max_cool_down_s=max_cool_down,
        )
        say_plan(plan, quiet=quiet)
        with interruptible() as interrupt:
            found = search(
                plan,
                settings,
                on_probe=(lambda probe: None) if quiet else _tell,
                interrupt=interrupt,
            )
    if json_out is not None:
        text = json.dumps(sweep_json(found, plan.config_digest, plan.seed), indent=1) + "\n"
        if json_out == STDOUT:
            typer.echo(text, nl=False)
        else:
            write_text(json_out, text)
    if not (quiet and json_out == STDOUT):
        _show(found, Console(stderr=json_out == STDOUT))
    raise typer.Exit(exit_code(found, at_least))


def exit_code(found: SweepResult, at_least: float | None) -> ExitCode:
    """Whether what was found is enough."""
    if found.max_goodput_rps == 0.0:
        lost = any(not probe.held for probe in found.probes)
        return ExitCode.MISSED if lost and not found.is_interrupted else ExitCode.UNDECIDED
    if at_least is not None:
        if found.max_goodput_rps >= at_least:
            return ExitCode.MET
        return ExitCode.MISSED if found.high_rps <= at_least else ExitCode.UNDECIDED
    return ExitCode.MET if found.is_decided or math.isinf(found.high_rps) else ExitCode.UNDECIDED


def sweep_json(found: SweepResult, config_digest: str, seed: int) -> dict[str, Any]:
    """Plain values; no bound is null."""
    return {
        "schema": SCHEMA,
        "config_digest": config_digest,
        "seed": seed,
        "max_goodput_rps": found.max_goodput_rps,
        "high_rps": None if math.isinf(found.high_rps) else found.high_rps,
        "is_decided": found.is_decided,
        "reason": found.reason,
        "probes": [_probe_json(probe) for probe in found.probes],
    }


def _probe_json(probe: Probe) -> dict[str, Any]:
    value = asdict(probe)
    value["verdict"] = {
        "outcome": probe.verdict.outcome.value,
        "reason": probe.verdict.reason,
    }
    value["end"] = probe.end.value
    return value


def _tell(probe: Probe) -> None:
    typer.echo(
        f"{probe.rps:.2f}/s {'held' if probe.held else 'did not hold'} "
        f"({probe.end}, {probe.num_requests} requests in {probe.duration_s:.1f} s, attainment "
        f"{probe.attainment:.4f}; {probe.verdict.outcome})",
        err=True,
    )


def _show(found: SweepResult, console: Console) -> None:
    table = Table("requests/s", "kept", "requests", "seconds", "verdict", "end")
    for probe in sorted(found.probes, key=lambda probe: probe.rps):
        table.add_row(
            f"{probe.rps:.2f}",
            f"{probe.attainment:.4f}",
            str(probe.num_requests),
            f"{probe.duration_s:.1f}",
            "held" if probe.held else "did not hold",
            str(probe.end),
        )
    console.print(table)
    high = "" if math.isinf(found.high_rps) else f"; {found.high_rps:.2f} did not hold"
    console.print(
        f"max_goodput_rps {found.max_goodput_rps:.2f}{high}"
        + (f" ({found.reason})" if found.reason else ""),
        highlight=False,
        markup=False,
    )
