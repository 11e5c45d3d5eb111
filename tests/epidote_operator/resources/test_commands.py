"""The containers' commands are ones that the workers' command line takes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import typer

from epidote_operator.resources.commands import (
    common_environment,
    gateway_command,
    head_command,
    worker_command,
)
from epidote_operator.resources.fleet_values import Fleet
from epidote_operator.resources.head import head_deployment, head_service
from epidote_operator.resources.ray_port import FIRST, NUM_PORTS, ray_port
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


def test_how_much_of_a_gpu_and_weights_in_8_bits_are_said_to_the_head() -> None:
    model = {"uri": "builtin://demo", "quantization": "Int8"}
    for given, said in ((0.9, "0.9"), (1, "1.0"), (0.05, "0.05")):
        pool = {"maxWorkers": 8, "gpuMemoryUtilization": given}
        fleet = replace(FLEET, spec=parse_service({**SPEC, "model": model, "pool": pool}))
        assert {f"--gpu-memory-utilization={said}", "--quantization=int8"} <= set(
            head_command(fleet)
        )


def test_defaults_are_not_said() -> None:
    plain = {**SPEC, "model": {"uri": "builtin://demo"}, "pool": {"device": "Cpu", "maxWorkers": 8}}
    command = " ".join(head_command(replace(FLEET, spec=parse_service(plain))))
    assert "kv-" not in command
    assert "tensor-parallel" not in command
    assert "expert" not in command
    assert "memory" not in command
    assert "quantization" not in command


def test_a_model_that_takes_pictures_can_serve_text_alone() -> None:
    """The head would demand somebody who encodes, and never start."""
    model = {"uri": "builtin://demo", "modalities": ["Text"]}
    command = head_command(replace(FLEET, spec=parse_service({**SPEC, "model": model})))
    assert {"--text-only", "--roles=prefill=1,decode=1"} <= set(command)
    assert "--text-only" not in head_command(FLEET)


def test_parts_of_a_revision_meet_at_a_port_that_no_other_revision_has() -> None:
    """Ray's server listens on every address of a host that pods may share."""
    services = {"chat": FLEET, "another": replace(FLEET, name="describe")}
    revisions = [
        replace(built, revision=revision)
        for built in services.values()
        for revision in ("abc", "abd", "abe")
    ]
    ports = {ray_port(built) for built in revisions}
    assert len(ports) == len(revisions)
    assert all(FIRST <= port < FIRST + NUM_PORTS <= 30_000 for port in ports)
    port = ray_port(FLEET)
    (served,) = head_service(FLEET)["spec"]["ports"]
    (head,) = head_deployment(FLEET)["spec"]["template"]["spec"]["containers"]
    assert (served["port"], served["targetPort"]) == (port, port)
    assert f"--ray-port={port}" in head["command"]
    assert head["readinessProbe"]["tcpSocket"]["port"] == port
    for command in (worker_command(FLEET), gateway_command(FLEET)):
        assert f"--head={FLEET.head_service}:{port}" in command


def test_each_revision_has_a_token_of_its_own() -> None:
    """They share a Secret; a worker that finds another revision's head must be refused there."""
    told = {env["name"]: env.get("value") for env in common_environment(FLEET)}
    assert told["EPIDOTE_FLEET"] == "prod/chat/abc"
