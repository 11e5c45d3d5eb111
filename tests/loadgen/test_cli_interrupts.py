"""Signals, a broken stdout, bugs of ours: nothing measured is lost or passes for a miss."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from epidote_loadgen.cli import app, main
from epidote_loadgen.cli_results import write_outputs
from epidote_loadgen.cli_session import interruptible

# CI may be slow; that is not what is tried.
PATIENT = ("--set", "limits.max_lateness_s=60", "--ttft-ms", "60000")


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "epidote_loadgen.cli", *arguments]


@pytest.mark.skipif(sys.platform != "linux", reason="no /dev/full")
@pytest.mark.parametrize("json_on_stdout", [False, True])
@pytest.mark.parametrize("stdout", ["full", "closed"])
def test_a_stdout_that_breaks_is_never_a_missed_promise(
    quick: str, tmp_path: Path, stdout: str, json_on_stdout: bool
) -> None:
    path = tmp_path / "run.csv"
    enough = ("--rps", "500", "--requests", "450", "--csv", str(path), *PATIENT)
    more = ("--json", "-", "-q") if json_on_stdout else ()
    if stdout == "full":
        out = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, out = os.pipe()
        os.close(reader)
    try:
        done = subprocess.run(
            command("run", "-t", quick, *enough, *more),
            stdout=out, stderr=subprocess.PIPE, timeout=300.0, check=False,
        )  # fmt: skip
    finally:
        os.close(out)
    assert done.returncode == 4, done.stderr
    assert b"stdout: can't be written" in done.stderr
    assert len(path.read_text().splitlines()) == 451


def test_a_bug_of_ours_is_never_a_missed_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("epidote_loadgen.cli.app", broken)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 4


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_does_not_cut_the_results_short(number: signal.Signals) -> None:
    heard: list[int] = []
    before = signal.signal(number, lambda number, frame: heard.append(number))
    try:
        with interruptible() as interrupt:
            for _ in range(2):
                os.kill(os.getpid(), number)
            assert interrupt.stop.is_set()
            assert interrupt.abandon.is_set()
            assert heard == []
            os.kill(os.getpid(), number)  # the third is what it is everywhere
            assert heard == [number]
    finally:
        signal.signal(number, before)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGHUP")
def test_a_signal_while_the_results_are_written_loses_none(
    quick: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.json"

    def write(*arguments: Any) -> bool:
        for number in (signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        return write_outputs(*arguments)

    monkeypatch.setattr("epidote_loadgen.cli_run.write_outputs", write)
    enough = ("--rps", "500", "--requests", "450", "--json", str(path))
    done = cli("run", "-t", quick, *enough, *PATIENT)
    assert done.exit_code == 0, done.output
    assert json.loads(path.read_text())["summary"]["num_requests"] == 450


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGINT to another process")
def test_ctrl_c_keeps_what_was_measured(quick: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    command = [sys.executable, "-m", "epidote_loadgen.cli", "run", "-t", quick, "--rps", "50"]
    with subprocess.Popen(
        [*command, "--duration", "600", "--json", str(path), *PATIENT],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200"},
        # A shell's background job ignores SIGINT, and so would this child.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "/s sent" in line and " 0/0 ok" not in line:
                break
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=120.0)
    assert process.returncode == 4, out
    assert "interrupted" in out
    run = json.loads(path.read_text())
    assert run["run"]["interrupted"]
    assert run["summary"]["num_requests"] > 0
