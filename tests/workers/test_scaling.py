"""This file is about setting the number of replicas by Ray's REST API, here a pretend one."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest

from epidote_workers.scaling import ScalingFailed, scale_by_rest


class Dashboard(BaseHTTPRequestHandler):
    asked: ClassVar[list[tuple[str, str | None, object]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.asked.append((self.path, self.headers["authorization"], body))
        self.send_response(200 if self.headers["authorization"] == "Bearer token" else 401)
        self.end_headers()
        self.wfile.write(b"say who you are")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url():
    Dashboard.asked.clear()
    server = HTTPServer(("127.0.0.1", 0), Dashboard)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_number_is_posted_with_the_token(url):
    scale_by_rest(url, "token", "epidote", "Engine", 3)
    path = "/api/v1/applications/epidote/deployments/Engine/scale"
    assert Dashboard.asked == [(path, "Bearer token", {"target_num_replicas": 3})]


def test_a_refusal_carries_the_dashboards_answer(url):
    with pytest.raises(ScalingFailed, match="401 say who you are"):
        scale_by_rest(url, "wrong", "epidote", "Engine", 3)


def test_no_dashboard_is_a_failure_with_its_address():
    with pytest.raises(ScalingFailed, match=r"127\.0\.0\.1:9"):
        scale_by_rest("http://127.0.0.1:9", "token", "epidote", "Engine", 3)
