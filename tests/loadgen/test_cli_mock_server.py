"""`mock-server` as a process of its own."""

import signal
import subprocess
import sys

import pytest
from typer.testing import CliRunner, Result

from epidote_loadgen.cli import app
from epidote_loadgen.mock_server.law import LatencyLaw

QUICK = LatencyLaw(ttft_s=0.002, itl_s=0.001)
PATIENT = ("--set", "limits.max_lateness_s=60")  # CI may be slow; that is not what is tried


def cli(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


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
