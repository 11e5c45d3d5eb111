"""The containers' commands are ones that the workers' command line takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import typer

from epidote_operator.resources.commands import gateway_command, head_command, worker_command
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.spec.parsing import parse_service
from epidote_workers.cli import app

SPEC = {
    "model": {
        "uri": "builtin://demo",
        "maxModelLength": 2048,
        "dtype": "Bfloat16",
        "kvCacheDtype": "Int8",
    },
    "pool": {
        "device": "Cpu",
        "maxWorkers": 8,
        "kvBlocks": 64,
        "cpuThreads": 2,
        "tensorParallelSize": 2,
    },
    "slo": {"ttftMilliseconds": 500, "tpotMilliseconds": 50},
}
FLEET = Fleet(name="chat", namespace="prod", uid="u", spec=parse_service(SPEC), revision="abc")


@pytest.mark.parametrize("command", [head_command, worker_command, gateway_command])
def test_every_flag_is_known_and_its_value_readable(command: Callable[[Fleet], list[str]]) -> None:
    program, name, *flags = (word.replace("$(POD_IP)", "10.0.0.1") for word in command(FLEET))
    assert program == "epidote"
    group: Any = typer.main.get_command(app)
    parsed = group.commands[name].make_context(name, flags)  # raises on what it doesn't know
    given = {flag.partition("=")[0].removeprefix("--").replace("-", "_") for flag in flags}
    assert given <= parsed.params.keys()


def test_what_all_workers_must_share_is_said_to_the_head() -> None:
    command = head_command(FLEET)
    assert {"--kv-cache-dtype=int8", "--tensor-parallel-size=2"} <= set(command)


def test_whole_experts_and_their_slots_are_said_to_the_head() -> None:
    experts = {"parallel": True, "redundantExperts": 16}
    command = head_command(replace(FLEET, spec=parse_service({**SPEC, "experts": experts})))
    assert {"--enable-expert-parallel", "--num-redundant-experts=16"} <= set(command)


def test_what_crosses_a_network_is_said_to_the_head() -> None:
    model = {"uri": "builtin://demo", "kvTransferDtype": "Fp8"}
    command = head_command(replace(FLEET, spec=parse_service({**SPEC, "model": model})))
    assert "--kv-transfer-dtype=fp8" in command


def test_defaults_are_not_said() -> None:
    plain = {**SPEC, "model": {"uri": "builtin://demo"}, "pool": {"device": "Cpu", "maxWorkers": 8}}
    command = " ".join(head_command(replace(FLEET, spec=parse_service(plain))))
    assert "kv-" not in command
    assert "tensor-parallel" not in command
    assert "expert" not in command
