"""What `helm test` runs: it waits for the operator's probe, and says what was wrong at the end."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from epidote_operator.installed import check


@pytest.fixture
def probe() -> Iterator[tuple[str, list[int]]]:
    """An address, and the statuses it answers with: the last one for ever."""
    answers = [200]

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Probe)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/healthz", answers
    server.shutdown()


def test_a_probe_that_is_well_is_reported(probe: tuple[str, list[int]]) -> None:
    url, _ = probe
    assert check(url) == f"{url}: 200"


def test_a_probe_that_becomes_well_is_waited_for(probe: tuple[str, list[int]]) -> None:
    url, answers = probe
    answers[:] = [503, 503, 200]
    assert check(url, pause_s=0.01).endswith("200")


def test_a_probe_that_stays_ill_fails_with_its_last_answer(
    probe: tuple[str, list[int]],
) -> None:
    url, answers = probe
    answers[:] = [503]
    with pytest.raises(TimeoutError, match="the last answer: 503"):
        check(url, patience_s=0.0)


def test_nobody_there_is_said_so() -> None:
    with pytest.raises(TimeoutError, match="ConnectError"):
        check("http://127.0.0.1:1/healthz", patience_s=0.0)
