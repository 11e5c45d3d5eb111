"""This file is about flags of the engine: workers are told what `serve` and `head` are given."""

import pytest
from typer.testing import CliRunner

from epidote_workers import cli_head, cli_serve
from epidote_workers.cli import app
from epidote_workers.service_settings import ReplicaSettings, ServiceSettings

FLAGS = [
    *("--dtype", "float16", "--device", "cuda", "--kv-cache-dtype", "int8"),
    *("--quantization", "fp8", "--compile-vision", "--tensor-parallel-size", "2"),
    *("--kv-blocks", "99", "--gpu-memory-utilization", "0.5", "--max-model-len", "640"),
]
MEANT = {
    "dtype": "float16",
    "device": "cuda",
    "kv_cache_dtype": "int8",
    "quantization": "fp8",
    "compile_vision": True,
    "tensor_parallel_size": 2,
    "num_kv_blocks": 99,
    "gpu_memory_utilization": 0.5,
    "max_model_len": 640,
}


@pytest.mark.parametrize("command", ["serve", "head"])
def test_workers_are_told_what_the_command_line_was_given(
    command: str, monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "t" * 32)
    told: list[ServiceSettings] = []

    def run(settings: ServiceSettings, **_: object) -> int:
        told.append(settings)
        return 0

    for module in (cli_serve, cli_head):
        monkeypatch.setattr(module, "run", run)
    free_ports = ["--port", "0", *(["--ray-port", str(unused_tcp_port)] * (command == "head"))]
    for flags in ([], FLAGS):
        result = CliRunner().invoke(app, [command, *free_ports, *flags])
        assert result.exit_code == 0, result.output
    default, given = (vars(settings.worker) for settings in told)
    assert {name: given[name] for name in MEANT} == MEANT
    plain = vars(ReplicaSettings(model="demo", device="auto"))
    assert {name: default[name] for name in MEANT} == {name: plain[name] for name in MEANT}
