"""This file is about the commands that ask a running service: what they send, show and refuse."""

import json
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from typer.testing import CliRunner

from epidote_workers.cli import app
from epidote_workers.port_reservation import PortReservation

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
