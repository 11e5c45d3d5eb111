"""`run` as a gate uses it: exit codes, messages, files, and faults of every kind."""

import asyncio
import contextlib
import json
import threading
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from epidote_loadgen.cli import app
from epidote_loadgen.fakes import mock_thread
from epidote_loadgen.mock_server.faults import Fault, FaultMix
from epidote_loadgen.mock_server.law import LatencyLaw
from epidote_loadgen.mock_server.server import MockSettings

QUICK = LatencyLaw(ttft_s=0.002, itl_s=0.001)
PATIENT = ("--set", "limits.max_lateness_s=60")  # CI may be slow; that is not what is tried
EASY = ("--ttft-ms", "60000")  # a promise that no machine is too slow for


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def test_a_kept_promise_exits_0_and_every_file_is_written(quick: str, tmp_path: Path) -> None:
    names = {"--json": "run.json", "--csv": "run.csv", "--parquet": "run.parquet"}
    names |= {"--junit": "run.xml", "--html": "run.html", "--verdict-file": "verdict.json"}
    files = [text for flag, name in names.items() for text in (flag, str(tmp_path / name))]
    done = cli("run", "-t", quick, "--rps", "300", "--requests", "450", *EASY, *PATIENT, *files)
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
    with mock_thread(MockSettings(law=QUICK, num_tokens=3, faults=mix)) as (url, server):
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
    done = cli("run", "-t", quick, "--rps", "100", "--requests", "20", "--quiet", *EASY, *PATIENT)
    assert done.exit_code == 4, done.output
    assert "more requests would settle it" in " ".join(done.stdout.split())
    # A quiet run says nothing else.
    told = "warning: all: TTFT <= 60000 ms for 0.99 of the requests can't be shown by about 20"
    assert done.stderr.startswith(told)
    assert len(done.stderr.splitlines()) == 1


def test_a_quiet_run_to_stdout_prints_its_json_and_nothing_else(quick: str) -> None:
    done = cli(
        "run", "-t", quick, "--rps", "300", "--requests", "400", "-q", "--json", "-", *PATIENT
    )
    assert json.loads(done.stdout)["summary"]["num_requests"] == 400
    assert done.stderr == ""


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
