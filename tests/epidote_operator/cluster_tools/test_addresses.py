"""Pods' addresses: clusters run side by side, and a dead one leaves its network to the next."""

import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from epidote_operator.testing.node.addresses import Addresses

OTHER = """
import sys, time
from epidote_operator.testing.node.addresses import Addresses
addresses = Addresses()
print(addresses.prefix, flush=True)
time.sleep(600)
"""
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Another node's process, and its network."""
    process = subprocess.Popen([sys.executable, "-c", OTHER], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


def test_nodes_of_two_processes_never_share_an_address(
    other: tuple[subprocess.Popen[str], str],
) -> None:
    ours, third = Addresses(), Addresses()
    try:
        assert len({other[1], ours.prefix, third.prefix}) == 3
        first = {ours.take(f"pod-{number}") for number in range(600)}
        second = {third.take(f"pod-{number}") for number in range(600)}
        assert len(first | second) == 1200
    finally:
        ours.close()
        third.close()


def test_a_killed_nodes_network_is_free_again(other: tuple[subprocess.Popen[str], str]) -> None:
    process, prefix = other
    process.send_signal(signal.SIGKILL)
    process.wait()
    claimed: list[Addresses] = []
    try:
        while prefix not in [addresses.prefix for addresses in claimed]:
            claimed.append(Addresses())  # raises once no network is left
    finally:
        for addresses in claimed:
            addresses.close()


def test_an_address_that_was_given_back_is_handed_out_again() -> None:
    addresses = Addresses()
    try:
        first = addresses.take("a")
        addresses.give_back("a")
        assert addresses.take("b") == first
        assert addresses.take("c") != first
    finally:
        addresses.close()
