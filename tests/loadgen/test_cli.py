"""The command as a gate uses it: exit codes, messages, files, and nothing lost."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from epidote_loadgen.cli import app, main
from epidote_loadgen.cli_results import write_outputs
from epidote_loadgen.cli_session import interruptible
from epidote_loadgen.mock_server.faults import Fault, FaultMix
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.server import MockServer, MockSettings, serving

QUICK = LatencyLaw(ttft_s=0.002, itl_s=0.001)
PATIENT = ("--set", "limits.max_lateness_s=60")  # CI may be slow; that is not what is tried


@contextlib.contextmanager
def mocked(settings: MockSettings) -> Iterator[tuple[str, MockServer]]:
    """A mock server in a thread: its URL and itself."""
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()
    up = threading.Event()
    found: list[tuple[str, MockServer]] = []

    async def main() -> None:
        async with serving(settings) as (server, url):
            found.append((url, server))
            up.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert up.wait(60.0)
    try:
        yield found[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(60.0)
        loop.close()


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture(scope="module")
def quick() -> Iterator[str]:
    with mocked(MockSettings(law=QUICK, num_tokens=3)) as (url, _):
        yield url


def test_a_kept_promise_exits_0_and_every_file_is_written(quick: str, tmp_path: Path) -> None:
    names = {"--json": "run.json", "--csv": "run.csv", "--parquet": "run.parquet"}
    names |= {"--junit": "run.xml", "--html": "run.html", "--verdict-file": "verdict.json"}
    files = [text for flag, name in names.items() for text in (flag, str(tmp_path / name))]
    done = cli("run", "-t", quick, "--rps", "300", "--requests", "450", *PATIENT, *files)
    assert done.exit_code == 0, done.output
    assert "PASS" in done.stdout
    assert all((tmp_path / name).stat().st_size > 0 for name in names.values())
    run = json.loads((tmp_path / "run.json").read_text())
    assert run["summary"]["num_requests"] == 450
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert (verdict["outcome"], verdict["exit_code"]) == ("PASS", 0)


def test_every_fault_of_a_server_is_a_miss_with_its_name_and_no_hang(tmp_path: Path) -> None:
    mix = FaultMix(dict.fromkeys(Fault, 1.0 / (len(Fault) + 1)), seed=4)
    path = tmp_path / "run.json"
    with mocked(MockSettings(law=QUICK, num_tokens=3, faults=mix)) as (url, server):
        done = cli(
            "run", "-t", url, "--rps", "200", "--requests", "120", "--json", str(path), *PATIENT,
            "--set", "limits.request_timeout_s=2",
        )  # fmt: skip
        had = {request.fault for request in server.truth.served}
    assert had == {*Fault, ""}
    assert done.exit_code == 1, done.output
    found = json.loads(path.read_text())["summary"]["by_status"]
    assert {"ok", "http-error", "server-error", "timeout", "reset", "truncated", "empty"} <= {
        *found
    }
    assert found["bad-sse"] > 0
    assert sum(found.values()) == 120


def test_a_server_that_speaks_no_http_fails_the_run() -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(10)
            writer.write(b"\x00\xff NOT HTTP AT ALL\r\n" * 10)
            await writer.drain()
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(babble, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    done = cli("run", "-t", url, "--model", "m", "--rps", "50", "--requests", "20", *PATIENT)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60.0)
    assert done.exit_code == 1, done.output
    assert "20 bad-sse" in done.output


def test_too_few_requests_exit_4_tell_how_many_more_and_warned_before(quick: str) -> None:
    done = cli("run", "-t", quick, "--rps", "100", "--requests", "20", "--quiet", *PATIENT)
    assert done.exit_code == 4, done.output
    assert "more requests would settle it" in " ".join(done.stdout.split())
    # A quiet run says nothing else.
    told = "warning: all: TTFT <= 1000 ms for 0.99 of the requests can't be shown by about 20"
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1


def test_a_quiet_run_to_stdout_prints_its_json_and_nothing_else(quick: str) -> None:
    done = cli(
        "run", "-t", quick, "--rps", "300", "--requests", "400", "-q", "--json", "-", *PATIENT
    )
    assert json.loads(done.stdout)["summary"]["num_requests"] == 400
    assert done.stderr == ""


def test_a_rate_does_not_fit_a_file_with_users(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    closed = "{kind: closed, users: 5, duration_s: 1}"
    path.write_text(CONFIG.replace("{rate: 5, duration_s: 1}", closed).replace("-5", "5"))
    done = cli("run", str(path), "--rps", "5")
    assert done.exit_code == 2
    assert "--rps: the arrivals of" in done.stderr
    assert "are of kind closed, want open" in done.stderr


def test_a_client_that_was_late_exits_4_and_says_so(quick: str) -> None:
    done = cli(
        "run", "-t", quick, "--rps", "300", "--requests", "450",
        "--set", "limits.max_lateness_s=0.0000001",
    )  # fmt: skip
    assert done.exit_code == 4, done.output
    assert "the client was the bottleneck" in " ".join(done.stdout.split())


@pytest.mark.parametrize("model", [(), ("--model", "m")])
def test_nobody_at_the_target_exits_3_and_the_files_say_why(
    tmp_path: Path, model: tuple[str, ...]
) -> None:
    junit, document = tmp_path / "run.xml", tmp_path / "run.json"
    files = ("--junit", str(junit), "--json", str(document))
    done = cli("run", "-t", "http://127.0.0.1:9", *model, *files)
    assert done.exit_code == 3
    assert "target unreachable" in done.stderr
    verdict = json.loads(document.read_text())["verdict"]
    assert (verdict["outcome"], verdict["exit_code"]) == ("INCONCLUSIVE", 3)
    assert "never reached" in verdict["reason"]
    [error] = ET.parse(junit).findall("testsuite/testcase[@classname='run']/error")
    assert "refused" in str(error.get("message"))


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


CONFIG = """\
target: {url: "http://127.0.0.1:9", model: m}
arrivals: {rate: 5, duration_s: 1}
classes: {chat: {kind: lengths, prompt_tokens: 10, output_tokens: 5}}
slo:
  chat:
    objectives:
      - {ttft_ms: -5}
"""


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


def test_flags_for_a_quick_run_do_not_mix_with_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(CONFIG.replace("-5", "5"))
    done = cli("run", str(path), "--ttft-ms", "100")
    assert done.exit_code == 2
    assert "--ttft-ms: only without a run file" in done.stderr


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EPIDOTE_LOADGEN_API_KEY", "sk-very-secret")
    path = tmp_path / "run.json"
    heads: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            await writer.drain()
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(listen, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    done = cli(
        "run", "-t", url, "--model", "m", "--rps", "50", "--requests", "10", "--json", str(path),
        *PATIENT,
    )  # fmt: skip
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60.0)
    assert done.exit_code == 1
    assert sum(b"authorization: Bearer sk-very-secret" in head for head in heads) == 10
    assert "secret" not in done.output + done.stderr + path.read_text()


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


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGTERM to another process")
def test_the_mock_server_says_where_it_listens_and_ends_when_told() -> None:
    command = [sys.executable, "-m", "epidote_loadgen.cli", "mock-server", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready, _, url = process.stdout.readline().partition(": ")
        assert ready == "the mock server is ready"
        done = cli("run", "-t", url.strip(), "--rps", "50", "--requests", "5", *PATIENT)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60.0)
    assert "5 ended well" in done.output
    assert process.returncode == 0
