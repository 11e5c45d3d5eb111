"""What is wrong with a command, a run file or a trace is told before anything is sent."""

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from epidote_loadgen.cli import app

PATIENT = ("--set", "limits.max_lateness_s=60")  # CI may be slow; that is not what is tried


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["run"], "--target: whom to test"),
        (["run", "-t", "example.org"], "must begin with http://"),
        (["run", "-t", "http://h:70000"], "target.url: want a port from 0 to 65535"),
        (["run", "-t", "http://h:port", "--model", "m"], "target.url: want a port"),
        (["run", "-t", "http://h", "--set", "target.proxy_url=http://p:70000"], "proxy_url: want"),
        (
            ["run", "-t", "http://h", "--set", "seed=true"],
            "--set: seed: want a number, found true",
        ),
        (
            ["run", "-t", "http://h", "--set", "slo.all.objectives=[{ttft_ms: true}]"],
            "slo.all.objectives[0].ttft_ms: want a number, found true",
        ),
        (
            ["run", "-t", "http://h", "--set", "slo.all.objectives=[{ttft_ms: null}]"],
            "slo.all.objectives[0].ttft_ms: want a number > 0, found nothing",
        ),
        (
            ["run", "-t", "http://h", "--set", "limits.max_in_flight=false"],
            "limits.max_in_flight: want a number, found false",
        ),
        (["run", "-t", "http://h", "--set", "seed"], "--set: want PATH=VALUE"),
        (["run", "-t", "http://h", "--set", "sead=1"], "--set: sead: no such field"),
        (["run", "-t", "http://h", "--set", "seed=[1"], "--set seed: the value is no YAML"),
        (
            ["run", "-t", "http://h", "--set", "seed=x"],
            "--set: seed: want a whole number, found 'x'",
        ),
        (
            ["run", "-t", "http://h", "--rps", "5", "--users", "2"],
            "--rps: not together with --users",
        ),
        (["run", "-t", "http://h", "--rps", "inf"], "--rps: arrivals.rate: want a number"),
        (
            ["run", "-t", "http://h", "--prompt-tokens", "1000000000000"],
            "--prompt-tokens: classes.requests.prompt_tokens: want a number <= 1e+07",
        ),
        (
            ["run", "-t", "http://h", "--questions", "--prompt-tokens", "9"],
            "--prompt-tokens: not together with --questions",
        ),
        (["run", "-t", "http://h", "--ratio", "2"], "--ratio: slo.all.objectives[0].ratio: want"),
        (["sweep", "-t", "http://h", "--model", "m", "--probe", "inf"], "probe_s: must be"),
        (["report", "/nowhere/run.json"], "/nowhere/run.json: can't be read: No such file"),
        (["run", "-t", "http://h", "--model", "m", "--json", "/proc/no/run.json"], "--json"),
        (
            ["sweep", "-t", "http://h", "--model", "m", "--start-rps", "9", "--max-rps", "5"],
            "rates",
        ),
        (["mock-server", "--stall", "soon"], "--stall: want AT:FOR"),
        (["mock-server", "--fault", "explode"], "fault: want NAME"),
        (["mock-server", "--fault", "reset=2"], "found reset=2"),
        (
            ["mock-server", "--port", "0", "--tls-cert", "/no.pem"],
            "--tls-cert /no.pem: No such file",
        ),
    ],
)
def test_a_wrong_command_exits_2_saying_what_is_wrong(arguments: list[str], complaint: str) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2, done.output
    assert complaint in done.stderr


CONFIG = """\
target: {url: "http://127.0.0.1:9", model: m}
arrivals: {rate: 5, duration_s: 1}
classes: {chat: {kind: lengths, prompt_tokens: 10, output_tokens: 5}}
slo:
  chat:
    objectives:
      - {ttft_ms: -5}
"""


def test_a_rate_does_not_fit_a_file_with_users(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    closed = "{kind: closed, users: 5, duration_s: 1}"
    path.write_text(CONFIG.replace("{rate: 5, duration_s: 1}", closed).replace("-5", "5"))
    done = cli("run", str(path), "--rps", "5")
    assert done.exit_code == 2
    assert "--rps: the arrivals of" in done.stderr
    assert "are of kind closed, want open" in done.stderr


def test_two_results_do_not_go_to_one_file(tmp_path: Path) -> None:
    path = str(tmp_path / "run.out")
    done = cli("run", "-t", "http://127.0.0.1:9", "--model", "m", "--json", path, "--csv", path)
    assert done.exit_code == 2, done.output
    assert "--csv: " in done.stderr
    assert "is what --json is written to" in done.stderr


def test_a_run_without_promises_is_warned_of_before_it_starts(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.partition("slo:")[0] + "slo: {}\n")
    done = cli("run", str(path), "--quiet")
    assert done.stderr.startswith("warning: slo: nothing is promised")


def test_a_malformed_slo_exits_2_naming_file_line_and_field(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG)
    done = cli("run", str(path))
    assert done.exit_code == 2
    assert "run.yaml:7" in done.stderr
    assert "ttft_ms" in done.stderr


def test_a_trace_with_bad_rows_exits_2_naming_the_line(quick: str, tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    header = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    path.write_text(header + "2023-11-16 18:15:46.68,374,44\n2023-11-16 18:15:47.0,many,4\n")
    for target in (quick, "http://127.0.0.1:9"):  # the files are read before the target is asked
        done = cli("replay", str(path), "-t", target)
        assert done.exit_code == 2
        assert "line 3" in done.stderr
    path.write_text(header + "2023-11-16 18:15:46.68,99999999999,44\n")
    assert "from 0 to 10000000" in cli("replay", str(path), "-t", quick).stderr


def test_flags_for_a_quick_run_do_not_mix_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("-5", "5"))
    done = cli("run", str(path), "--ttft-ms", "100")
    assert done.exit_code == 2
    assert "--ttft-ms: only without a run file" in done.stderr
