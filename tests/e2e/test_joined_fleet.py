"""A fleet whose head, gateway and workers are started apart, as pods are, on loopback."""

import contextlib
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from epidote_workers.process_tree import Process, descendants, is_running

openai = pytest.importorskip("openai")
pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 300.0
LONG_TOKENS = 400
SECRETS = {"RAY_AUTH_TOKEN": "e2e-" + "t" * 32, "EPIDOTE_GATEWAY_ADMIN_KEY": "e2e-admin"}


def free_ports(count: int) -> list[int]:
    """Free ones that the kernel gives to nobody by itself.

    Ray opens hundreds of sockets on ports of the kernel's choice before the last of these is bound.
    """
    given = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first, last = map(int, given.read_text().split()) if given.exists() else (32768, 60999)
    others = [port for port in range(20_000, 60_000) if not first <= port <= last]
    found: list[int] = []
    for port in random.sample(others if len(others) > 200 else range(20_000, 30_000), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found.append(port)
        if len(found) == count:
            break
    return found


class Fleet:
    """The processes by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.seen: set[Process] = set()
        self.ray, self.http, self.a, self.b = free_ports(4)

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / name).open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "epidote_workers.cli", *arguments],
                stdout=log,
                stderr=log,
                # nodes look for a lost head for 60 s by default
                env={**os.environ, **SECRETS, "RAY_gcs_rpc_server_reconnect_timeout_s": "10"},
                start_new_session=True,
            )

    def said(self, name: str) -> str:
        return (self.folder / name).read_text()

    def note_processes(self) -> None:
        for process in self.processes.values():
            self.seen |= descendants(process.pid)

    def get(self, url: str, wanted: int = 200) -> httpx.Response:
        """Ask until the answer's status is `wanted`; fails when a process has ended."""
        deadline_s = time.monotonic() + PATIENCE_S
        headers = {"authorization": f"Bearer {SECRETS['EPIDOTE_GATEWAY_ADMIN_KEY']}"}
        answer: httpx.Response | None = None
        while time.monotonic() < deadline_s:
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {self.said(name)}"
            with contextlib.suppress(httpx.HTTPError):
                answer = httpx.get(url, headers=headers, timeout=10.0, trust_env=False)
                if answer.status_code == wanted:
                    return answer
            time.sleep(0.2)
        logs = {name: self.said(name) for name in self.processes}
        pytest.fail(f"{url}: {answer.text if answer else 'no answer'}\n{logs}")

    def workers(self) -> list[dict[str, Any]]:
        return list(self.get(f"http://127.0.0.1:{self.http}/admin/fleet").json()["workers"])


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    fleet = Fleet(tmp_path_factory.mktemp("fleet"))
    join = ("--head", f"127.0.0.1:{fleet.ray}")
    try:
        for name, port in (("a", fleet.a), ("b", fleet.b)):  # before the head: in any order
            fleet.start(name, "worker", *join, "--name", f"pod-{name}", "--probe-port", str(port))
        fleet.start(
            "head", "head", "--model", "demo", "--roles", "all=2", "--gateways", "0",
            "--ray-port", str(fleet.ray), "--dtype", "float32", "--max-model-len", "1024",
        )  # fmt: skip
        fleet.start("gateway", "gateway", *join, "--port", str(fleet.http))
        yield fleet
    finally:
        fleet.note_processes()
        for name in ("gateway", "a", "b", "head"):
            if (process := fleet.processes.get(name)) and process.poll() is None:
                process.send_signal(signal.SIGINT)
        for process in fleet.processes.values():
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()


def answer(fleet: Fleet, question: str, tokens: int = LONG_TOKENS) -> tuple[str, dict[str, Any]]:
    """A greedy answer of exactly `tokens`, streamed, and our extension."""
    client = openai.OpenAI(
        base_url=f"http://127.0.0.1:{fleet.http}/v1", api_key="none", timeout=PATIENCE_S
    )
    text, extension = "", {}
    for chunk in client.chat.completions.create(
        model="demo",
        messages=[{"role": "user", "content": question}],
        temperature=0,
        max_tokens=tokens,
        stream=True,
        extra_body={"ignore_eos": True},
        extra_headers={"x-epidote-timings": "1"},
    ):
        text += "".join(choice.delta.content or "" for choice in chunk.choices)
        extension = (chunk.model_extra or {}).get("epidote") or extension
    return text, extension


def test_workers_that_joined_answer_and_tell_how_they_are(fleet: Fleet) -> None:
    for port in (fleet.a, fleet.b):
        fleet.get(f"http://127.0.0.1:{port}/readyz")
    fleet.get(f"http://127.0.0.1:{fleet.http}/readyz")
    deadline_s = time.monotonic() + PATIENCE_S
    while [w["state"] for w in fleet.workers()] != ["routable"] * 2:
        assert time.monotonic() < deadline_s, fleet.workers()
        time.sleep(0.2)
    workers = fleet.workers()
    assert {worker["node_id"] for worker in workers} == {"pod-a", "pod-b"}
    assert all(worker["address"].startswith("tcp:127.0.0.1:") for worker in workers)
    for port, name in ((fleet.a, "pod-a"), (fleet.b, "pod-b")):
        assert fleet.get(f"http://127.0.0.1:{port}/livez").json() == {"status": "ok"}
        (mine,) = fleet.get(f"http://127.0.0.1:{port}/worker").json()["workers"]
        assert (mine["node_id"], mine["role"], mine["state"]) == (name, "all", "routable")
        assert mine["worker_id"] in {worker["worker_id"] for worker in workers}
        metrics = fleet.get(f"http://127.0.0.1:{port}/metrics").text
        assert 'epidote_workers{role="all",state="routable"} 1.0' in metrics
    assert len(answer(fleet, "What is 2 + 3?")[0]) > LONG_TOKENS


def test_the_gateway_knows_the_heads_limit(fleet: Fleet) -> None:
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{fleet.http}/v1", api_key="none")
    with pytest.raises(openai.BadRequestError, match="may have 1024 tokens") as refused:
        client.completions.create(model="demo", prompt=[5] * 100, max_tokens=1000)
    assert (refused.value.code, refused.value.param) == ("context_length_exceeded", "max_tokens")


def test_a_terminated_worker_hands_its_streams_on_and_nothing_counts_as_lost(
    fleet: Fleet,
) -> None:
    truth, _ = answer(fleet, "What is 4 + 5?")
    fleet.note_processes()
    gone = threading.Event()

    def keep_asking() -> list[str]:  # one answer may be over before anybody has looked
        texts = []
        while not gone.is_set():
            texts.append(answer(fleet, "What is 4 + 5?")[0])
        return texts

    with ThreadPoolExecutor(4) as pool:
        streams = [pool.submit(keep_asking) for _ in range(4)]
        try:
            deadline_s = time.monotonic() + PATIENCE_S
            while not any(worker["load"]["num_running"] for worker in fleet.workers()):
                assert time.monotonic() < deadline_s
            leaver = fleet.processes.pop("a")
            leaver.send_signal(signal.SIGTERM)
            assert leaver.wait(PATIENCE_S) == 0, fleet.said("a")
        finally:
            gone.set()
        found = [text for stream in streams for text in stream.result(PATIENCE_S)]
    assert set(found) == {truth}
    deadline_s = time.monotonic() + PATIENCE_S
    while [worker["node_id"] for worker in fleet.workers()] != ["pod-b"]:
        assert time.monotonic() < deadline_s, fleet.workers()
        time.sleep(0.2)
    metrics = fleet.get(f"http://127.0.0.1:{fleet.http}/metrics").text
    assert "epidote_resumes_total 0.0" in metrics
    assert answer(fleet, "What is 4 + 5?")[0] == truth


def test_nothing_outlives_its_head(fleet: Fleet) -> None:
    fleet.note_processes()
    head = fleet.processes["head"]
    head.send_signal(signal.SIGINT)
    assert head.wait(PATIENCE_S) == 0
    for name in ("b", "gateway"):
        assert fleet.processes[name].wait(PATIENCE_S) == 1
        assert re.search(r"error: .+", fleet.said(name)), fleet.said(name)
    assert [process for process in fleet.seen if is_running(process)] == []
