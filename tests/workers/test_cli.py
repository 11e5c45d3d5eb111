"""This file is about the command line without a service behind it: flags, refusals, rendering."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

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

LOAD = {
    "num_waiting": 1,
    "num_running": 2,
    "num_encoding": 0,
    "num_kv_blocks": 100,
    "num_free_kv_blocks": 75,
    "ttft_s": 0.0123,
    "tpot_s": 0.0,
}
FLEET = {
    "model": "demo",
    "roles": {"encode": 0, "prefill": 1, "decode": 1, "all": 0},
    "workers": [
        {"worker_id": "w2", "role": "decode", "state": "draining", "epoch": 3, "load": LOAD},
        {"worker_id": "w1", "role": "prefill", "state": "routable", "epoch": 1, "load": LOAD},
    ],
}
SWITCH = {
    "worker_id": "w2",
    "from_role": "decode",
    "to_role": "prefill",
    "ok": True,
    "epoch": 4,
    "drain_s": 0.1,
    "switch_s": 0.02,
    "verify_s": 0.003,
    "message": "",
}
EVENTS = [
    {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"choices": [{"index": 0, "delta": {"content": "three"}}]},
    {
        "choices": [{"index": 0, "delta": {"content": " circles"}}],
        "epidote": {
            "ttft_ms": 14.2,
            "total_ms": 31.0,
            "num_resumes": 0,
            "stages": [
                {
                    "stage": "prefill",
                    "worker": "w1",
                    "busy_ms": 9.0,
                    "queued_ms": 0.0,
                    "num_tokens": 40,
                    "num_bytes": 0,
                }
            ],
        },
    },
]


SEATS = {"ranks": 2, "placement": "abc", "target": "", "is_moving": False, "refusal": ""}
EXPERTS = {
    "tokens": [[1, 2]],
    "is_moving": True,
    "workers": [
        {**SEATS, "worker_id": "w1", "imbalance": 1.256, "num_moves": 2, "slot_s": 0.1},
        {
            **SEATS,
            "worker_id": "w2",
            "target": "def",
            "is_moving": True,
            "imbalance": 1.0,
            "num_moves": 0,
            "slot_s": 0.0,
        },
    ],
    "placements": {"abc": [[0, 1]]},
}


class Service(BaseHTTPRequestHandler):
    """Answers like a gateway; keeps what it was asked."""

    asked: ClassVar[list[tuple[str, str, object, str | None]]] = []
    outcome: ClassVar[dict[str, object]] = SWITCH
    experts: ClassVar[dict[str, object]] = EXPERTS

    def _answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        self.asked.append((self.command, self.path, body, self.headers.get("authorization")))
        status, answer = 200, {}
        if self.path == "/admin/fleet":
            answer = FLEET
        elif self.path == "/admin/roles" and self.command == "PUT":
            answer = {"outcomes": [self.outcome], "roles": FLEET["roles"]}
            status = 200 if self.outcome["ok"] else 409
        elif self.path == "/admin/roles":
            answer = FLEET["roles"]
        elif self.path == "/admin/experts":
            answer = self.experts
        elif self.path == "/v1/models":
            answer = {"data": [{"id": "demo"}]}
        elif self.path == "/admin/scale":
            status, answer = 403, {"error": {"message": "administration is off"}}
        data = json.dumps(answer).encode()
        if self.path == "/v1/chat/completions":
            data = b"".join(b"data: " + json.dumps(e).encode() + b"\n\n" for e in EVENTS)
            data += b"data: [DONE]\n\n"
        self.send_response(status)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch):
    Service.asked.clear()
    monkeypatch.setattr(Service, "outcome", SWITCH)
    server = HTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


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
            ["--quantization", "int8", "--tensor-parallel-size", "2"],
            "--quantization int8: not with --tensor-parallel-size",
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


def test_status_lists_workers_in_the_order_of_the_stages(url):
    result = run("status", "--url", url)
    lines = [line.split("\t") for line in result.stdout.strip().splitlines()]
    assert [line[0] for line in lines] == ["worker", "w1", "w2"]
    assert lines[1][1:] == ["prefill", "routable", "1", "1", "2", "0", "25%", "12.3 ms", "-"]
    assert json.loads(run("status", "--json", "--url", url).stdout) == FLEET


def test_experts_are_shown_by_worker_with_what_is_in_force_and_what_is_wanted(url, monkeypatch):
    result = run("experts", "--url", url)
    lines = [line.split("\t") for line in result.stdout.strip().splitlines()]
    assert lines[1:] == [
        ["w1", "2", "abc", "-", "placed", "1.26", "2"],
        ["w2", "2", "abc", "def", "moving", "1.00", "0"],
    ]
    assert json.loads(run("experts", "--json", "--url", url).stdout) == EXPERTS
    monkeypatch.setattr(Service, "experts", {**EXPERTS, "workers": []})
    assert "every expert is cut" in run("experts", "--url", url).stdout


def test_roles_are_shown_and_set(url):
    assert run("roles", "get", "--url", url).stdout == "prefill=1,decode=1\n"
    result = run("roles", "set", "prefill=2", "--url", url, "--api-key", "secret")
    assert result.exit_code == 0
    assert "w2: decode -> prefill, drain 100 ms, switch 20 ms, verify 3 ms" in result.stdout
    assert Service.asked[-1] == ("PUT", "/admin/roles", {"prefill": 2}, "Bearer secret")


def test_a_switch_that_was_rolled_back_is_shown_and_exits_1(url, monkeypatch):
    failed = {**SWITCH, "ok": False, "message": "not drained within 1 s"}
    monkeypatch.setattr(Service, "outcome", failed)
    result = run("roles", "set", "prefill=2", "--url", url)
    assert result.exit_code == 1
    assert "NOT switched: not drained within 1 s" in result.stdout


def test_a_bad_split_exits_2_without_asking_the_service(url):
    assert run("roles", "set", "prefill", "--url", url).exit_code == 2
    assert Service.asked == []


def test_a_refusal_is_one_line_and_exits_1(url):
    result = run("scale", "6", "--url", url)
    assert result.exit_code == 1
    assert result.stderr == "error: administration is off (HTTP 403)\n"


def test_nobody_there_exits_3():
    with PortReservation("127.0.0.1", 0) as claim:
        result = run("status", "--url", f"http://127.0.0.1:{claim.port}")
    assert result.exit_code == 3
    assert "no answer from" in result.stderr


def test_ask_streams_the_answer_and_tells_who_did_what(url, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"not looked at here")
    result = run("ask", "How many?", "--image", str(picture), "--url", url)
    assert result.stdout == "three circles\n"
    assert "prefill   on w1: 9.0 ms (40 tokens)" in result.stderr
    assert "first token 14 ms, all 31 ms" in result.stderr
    (_, _, body, _) = Service.asked[-1]
    image, text = body["messages"][0]["content"]
    assert image["image_url"]["url"].startswith("data:image/png;base64,")
    assert text == {"type": "text", "text": "How many?"}


def test_a_missing_picture_names_the_flag(url):
    result = run("ask", "How many?", "--image", "/no/such.png", "--url", url)
    assert result.exit_code == 2
    assert "--image" in result.stderr


# a background job of a shell inherits an ignored SIGINT, and so would the command
INTERRUPTIBLE = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from epidote_workers.cli import main
main()
"""


def test_ctrl_c_while_a_watch_runs_ends_it_quietly(url):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, "status", "--watch", "--url", url],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().startswith("worker")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=100)
    assert (process.returncode, errors) == (0, "")
