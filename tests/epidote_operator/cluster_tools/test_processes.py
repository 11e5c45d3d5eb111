"""Background processes of a test cluster: they end when told, or with whoever started them."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from epidote_operator.testing import processes

PATIENCE_S = 60.0
PARENT = """
import signal, sys, time
from pathlib import Path
from epidote_operator.testing import processes
processes.spawn(Path(sys.argv[1]), "ends", ["sleep", "600"], at_our_death=signal.SIGKILL)
processes.spawn(Path(sys.argv[1]), "stays", ["sleep", "600"])
print("started", flush=True)
time.sleep(600)
"""


def test_a_stopped_process_is_gone_and_stopping_again_is_nothing(tmp_path: Path) -> None:
    processes.spawn(tmp_path, "part", ["sleep", "600"])
    assert processes.is_running(tmp_path, "part")
    processes.stop(tmp_path, "part")
    assert not processes.is_running(tmp_path, "part")
    processes.stop(tmp_path, "part")


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_a_killed_parent_takes_along_what_shall_not_outlive_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "started\n"
        assert processes.is_running(tmp_path, "ends")
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline_s = time.monotonic() + PATIENCE_S
        while processes.is_running(tmp_path, "ends"):
            assert time.monotonic() < deadline_s, "it outlived its parent"
            time.sleep(0.05)
        assert processes.is_running(tmp_path, "stays")
    finally:
        parent.kill()
        processes.stop(tmp_path, "stays")
