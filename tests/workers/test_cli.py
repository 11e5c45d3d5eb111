"""This file is about the command line without a service behind it: flags, refusals, rendering."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role
from epidote_gateway.settings import InvalidSettings
from epidote_workers.assignment import EVERY_STAGE, TEXT_STAGES, format_counts
from epidote_workers.cli import app
from epidote_workers.cli_serve import gateway_settings, model_stages, split
from epidote_workers.port_reservation import PortReservation, PortTaken
from epidote_workers.process_tree import descendants, end, is_running
from epidote_workers.ray_environment import ray_environment
from epidote_workers.renderer import renderer_of
from epidote_workers.service_settings import ReplicaSettings, ServiceSettings
from epidote_workers.supervisor import StartFailed, Supervisor, temporary_directory


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.parametrize(
    "command", ["serve", "status", "scale", "ask", "experts", "roles get", "roles set"]
)
def test_help_shows_one_real_example(command):
    result = run(*command.split(), "--help")
    assert result.exit_code == 0
    assert f"Example: epidote {command}" in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--roles", "encode=1,decode=2"], "--roles: nobody would serve prefill"),
        (
            ["--roles", "encode=1,prefill=1,decode=2", "--workers", "3"],
            "--roles with --workers 3: encode=1,prefill=1,decode=2 adds up to 4 workers",
        ),
        (["--roles", "encoder=1"], "--roles: 'encoder' is no role"),
        (["--dtype", "int8"], "--dtype: must be one of auto, float32"),
        (["--kv-cache-dtype", "int4"], "--kv-cache-dtype: must be one of auto, int8, fp8"),
        (["--quantization", "awq"], "--quantization: must be one of int8, fp8, got 'awq'"),
        (
            ["--quantization", "int8", "--device", "cpu"],
            "--quantization int8: on a CPU with --dtype float16 only, got auto",
        ),
        (["--gpu-memory-utilization", "1.5"], "--gpu-memory-utilization: must be more than 0"),
        (["--device", "tpu"], "--device: must be one of auto, cpu, cuda"),
        (
            ["--tensor-parallel-size", "4"],
            "--tensor-parallel-size: tensor parallelism over 4: num_attention_heads 6 can't be cut",
        ),
        (
            ["--enable-expert-parallel"],
            "--enable-expert-parallel: needs tensor parallelism over at least 2 ranks",
        ),
        (
            ["--tensor-parallel-size", "2", "--enable-expert-parallel"],
            "--enable-expert-parallel: the model has no experts",
        ),
        (
            ["--num-redundant-experts", "2"],
            "--num-redundant-experts: 2 need --enable-expert-parallel",
        ),
        (["--model", "/no/such/model"], "/no/such/model"),
        (["--workers", "0"], "--workers"),
        (["--api-key", ""], "--api-key: must be `key` or `tenant:key`"),
    ],
)
def test_what_cannot_be_served_is_refused_before_anything_starts(flags, message):
    result = run("serve", *flags)
    assert result.exit_code == 2
    assert message in result.output
    assert not result.stdout


def test_a_port_in_use_is_refused_at_once():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        result = run("serve", "--port", port)
    assert result.exit_code == 1
    assert f"--port: 127.0.0.1:{port} can't be used: Address already in use" in result.output


def test_an_address_of_somebody_else_is_blamed_on_the_host():
    result = run("serve", "--host", "203.0.113.9")  # documentation's own network (RFC 5737)
    assert result.exit_code == 2
    assert "--host: '203.0.113.9' is no address of this machine" in result.output
    assert "--port" not in result.output


def test_asking_needs_no_admin_key():
    assert "Admin key" not in run("ask", "--help").output


def test_two_services_never_start_on_one_port_even_before_they_listen():
    with PortReservation("127.0.0.1", 0) as first:
        assert first.port
        with pytest.raises(PortTaken):
            PortReservation("127.0.0.1", first.port)
        with socket.socket() as gateway:  # of this user, beside the claim
            gateway.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            gateway.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            gateway.bind(("127.0.0.1", first.port))
            gateway.listen()
            socket.create_connection(("127.0.0.1", first.port), timeout=60).close()
    PortReservation("127.0.0.1", first.port).release()


@pytest.mark.parametrize(
    ("roles", "workers", "stages", "result"),
    [
        ("", None, EVERY_STAGE, "encode=1,prefill=1,decode=2"),
        ("", 3, EVERY_STAGE, "encode=1,prefill=1,decode=1"),
        ("", 1, EVERY_STAGE, "all=1"),
        ("", None, TEXT_STAGES, "prefill=1,decode=3"),
        ("", 2, TEXT_STAGES, "prefill=1,decode=1"),
        ("all=2", None, EVERY_STAGE, "all=2"),
        ("prefill=1,decode=1", 2, TEXT_STAGES, "prefill=1,decode=1"),
    ],
)
def test_a_split_follows_from_flags_and_model(roles, workers, stages, result):
    assert format_counts(split(roles, workers, tuple(stages))) == result


def test_a_length_beyond_the_models_is_refused_and_a_shorter_one_reaches_the_gateway():
    with pytest.raises(InvalidRequest, match=r"--max-model-len: demo takes at most \d+ tokens"):
        model_stages("demo", 10**9)
    assert model_stages("demo", 64) == tuple(EVERY_STAGE)
    assert renderer_of("demo", 64).max_model_len == 64
    assert renderer_of("demo", None).max_model_len > 64


def test_a_fleet_for_text_alone_refuses_pictures_whatever_its_model_takes():
    assert renderer_of("demo", None).supports_images
    assert not renderer_of("demo", None, takes_media=False).supports_images


def test_a_text_model_still_needs_its_own_stages():
    with pytest.raises(InvalidRequest, match="prefill"):
        split("decode=2", None, tuple(TEXT_STAGES))


def test_the_first_key_also_administrates_unless_another_is_set(monkeypatch):
    settings = gateway_settings(["one", "two"])
    assert [key for _, key in settings.api_keys] == ["one", "two"]
    assert settings.admin_key == "one"
    monkeypatch.setenv("EPIDOTE_GATEWAY_ADMIN_KEY", "root")
    assert gateway_settings(["one"]).admin_key == "root"


def test_keys_name_their_tenants_on_the_command_line_as_in_the_environment(monkeypatch):
    monkeypatch.delenv("EPIDOTE_GATEWAY_API_KEYS", raising=False)
    given = gateway_settings(["shop:s1", "bare", "desk:d:2"])
    assert given.api_keys == (("shop", "s1"), ("key-1", "bare"), ("desk", "d:2"))
    assert given.admin_key == ""  # a tenant does not administrate the others
    monkeypatch.setenv("EPIDOTE_GATEWAY_API_KEYS", "shop:s1,bare,desk:d:2")
    assert gateway_settings([]).api_keys == given.api_keys
    for bad in ("", "shop:", ":s1"):
        with pytest.raises(InvalidSettings, match="--api-key: must be `key` or `tenant:key`"):
            gateway_settings([bad])


def test_the_private_token_is_fresh_for_every_cluster():
    first, second = ray_environment(1), ray_environment(1)
    assert first["RAY_AUTH_MODE"] == "token"
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]


def test_sockets_fit_below_a_temporary_directory_of_any_length(monkeypatch, tmp_path):
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    directory = Path(temporary_directory())
    try:
        assert len(str(directory)) < 40
        assert directory.stat().st_mode & 0o777 == 0o700
    finally:
        directory.rmdir()


def test_a_service_that_never_started_stops_without_a_trace():
    supervisor = Supervisor()
    assert Path(supervisor.directory).is_dir()
    supervisor.stop(threading.Event())
    assert not Path(supervisor.directory).exists()


def test_a_service_that_dies_while_it_starts_is_told_with_its_last_words(monkeypatch, tmp_path):
    host = tmp_path / "python"
    host.write_text("#!/bin/sh\necho 'no such thing' >&2\nexit 3\n")
    host.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(host))
    supervisor, never = Supervisor(), threading.Event()
    settings = ServiceSettings(worker=ReplicaSettings(model="demo"), shape={Role.ALL: 1})
    with pytest.raises(StartFailed, match="no such thing"):
        supervisor.start(settings, dashboard=False, progress=print, stop=never)
    supervisor.stop(never)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_own_processes_are_found_and_ended_and_no_others():
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', "
    script += "'import time; time.sleep(60)']); time.sleep(60)"
    before = descendants()
    parent = subprocess.Popen([sys.executable, "-c", script])
    while len(started := descendants() - before) < 2:
        time.sleep(0.01)
    assert all(is_running(process) for process in started)
    end(started, patience_s=0.0)
    parent.wait()
    assert end(started, patience_s=60.0) == []
    assert is_running(next(p for p in descendants(os.getppid()) if p[0] == os.getpid()))
    assert not is_running((os.getpid(), 1))  # this pid, but another start time
