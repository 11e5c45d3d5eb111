"""A cluster that is not there, or lets nobody in, is told in time."""

import socket
import subprocess
import sys

import pytest

pytest.importorskip("ray")
pytestmark = pytest.mark.slow
PATIENCE_S = 120.0


def refusal(address: str, *, join_s: float = 60.0) -> str:
    """What joining the cluster there is refused with, by a process that is in none."""
    code = (
        "from epidote_loadgen.runner.ray_parts import RayLauncher\n"
        f"try: RayLauncher({address!r}, join_s={join_s})\n"
        "except ValueError as error: print(error, flush=True)\n"
        "import os; os._exit(0)\n"  # without what Ray would still like to wait for
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=PATIENCE_S, check=True, text=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_nobody_at_the_address_is_told_at_once(scheme: str) -> None:
    told = refusal(f"{scheme}127.0.0.1:9")
    assert told.startswith(f"--ray {scheme}127.0.0.1:9: nobody answers there: ")


def test_an_address_that_lets_nobody_in_is_not_waited_for_without_end() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        told = refusal(address, join_s=2.0)
    assert told == f"--ray {address}: did not let us in within 2 s"
