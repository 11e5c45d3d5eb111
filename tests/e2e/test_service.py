"""The real service: `epidote serve` in a process of its own, the real openai client, real deaths.

One service for the whole file, in the order of the tests: it is scaled, loses workers and its
register, and is stopped by Ctrl-C at the end.
"""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene
from epidote_workers import process_traces as traces
from epidote_workers.process_tree import Process, command_name, descendants, is_running
from epidote_workers.service_process import serving

openai = pytest.importorskip("openai")
pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

KEY = "e2e-secret"
SPLIT = {"encode": 1, "prefill": 1, "decode": 2, "all": 0}
RECOVER_S = 240.0
PATIENCE_S = 240.0  # whatever should happen at once
LONG_TOKENS = 96
LONGER_TOKENS = 480  # seconds of decoding, in which the decoder is killed


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str
    directory: Path
    http: httpx.Client
    shared_before: set[str]  # other programs' shared memory
    seen: set[Process] = field(default_factory=set)

    @cached_property
    def client(self) -> Any:
        """Made once: making one takes long beside the moments in which workers are killed."""
        return openai.OpenAI(
            base_url=f"{self.url}/v1", api_key=KEY, timeout=PATIENCE_S, max_retries=0
        )

    def fleet(self) -> list[dict[str, Any]]:
        reply = self.http.get("/admin/fleet")
        assert reply.status_code == 200, reply.text
        return list(reply.json()["workers"])

    def roles(self) -> dict[str, int]:
        """Of the routable workers."""
        counts = Counter(w["role"] for w in self.fleet() if w["state"] == "routable")
        return {role: counts[role] for role in SPLIT}

    def wait_for(self, wanted: dict[str, int], within_s: float = RECOVER_S) -> float:
        """Until the routable workers' roles are `wanted`; the seconds it took."""
        started_s = time.monotonic()
        while (found := self.roles()) != wanted:
            assert time.monotonic() - started_s < within_s, f"wanted {wanted}, found {found}"
            time.sleep(0.1)
        return time.monotonic() - started_s

    def wait_for_in_flight(self, wanted: int) -> None:
        """Until the gateway has admitted so many requests."""
        started_s = time.monotonic()
        while f"epidote_requests_in_flight {wanted}.0" not in self.http.get("/metrics").text:
            assert time.monotonic() - started_s < PATIENCE_S
            time.sleep(0.05)

    def wait_for_work(self) -> None:
        """Until a worker has its part of a request: who does the others is chosen by then."""
        started_s = time.monotonic()
        while not any(has_work(worker["load"]) for worker in self.fleet()):
            assert time.monotonic() - started_s < PATIENCE_S
            time.sleep(0.02)

    def pid_of(self, role: str) -> int:
        return next(int(w["pid"]) for w in self.fleet() if w["role"] == role)

    def note_processes(self) -> None:
        self.seen |= descendants(self.process.pid)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    shared_before = traces.shared_memory()
    flags = ["--model", "demo", "--roles", "encode=1,prefill=1,decode=2", "--device", "cpu"]
    flags += ["--dtype", "float32"]  # tokens are then equal whatever shares the batch
    environ = {
        "EPIDOTE_API_KEY": KEY,
        # a worker takes over in a second, on a machine that has the time
        "EPIDOTE_GATEWAY_NO_WORKER_TIMEOUT_S": "200",
    }
    log = tmp_path_factory.mktemp("service") / "stderr.txt"
    with serving(*flags, log=log, environ=environ) as (process, url):
        raylet = next(p for p in descendants(process.pid) if command_name(p) == "raylet")
        directory = re.search(r"(/[^\0= ]*epidote-[^/\0]+)/r/session", traces.command_line(raylet))
        assert directory is not None
        headers = {"authorization": f"Bearer {KEY}"}
        with httpx.Client(base_url=url, headers=headers, timeout=PATIENCE_S) as http:
            running = Service(process, url, Path(directory[1]), http, shared_before)
            running.note_processes()
            yield running


def has_work(load: dict[str, Any]) -> bool:
    """Also blocks that wait for another worker to fill them."""
    are_held = load["num_free_kv_blocks"] < load["num_kv_blocks"]
    return bool(are_held or load["num_waiting"] or load["num_running"])


def picture(seed: int = 3) -> bytes:
    return encode(draw(sample_scene(Random(seed))), ImageFormat.PNG)


def image_question(
    text: str = "How many shapes are there?", *, seed: int = 3
) -> list[dict[str, Any]]:
    url = f"data:image/png;base64,{base64.b64encode(picture(seed)).decode()}"
    image = {"type": "image_url", "image_url": {"url": url}}
    return [{"role": "user", "content": [image, {"type": "text", "text": text}]}]


def text_question(text: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": text}]


def long_answer(
    service: Service,
    messages: list[dict[str, Any]],
    started: threading.Event | None = None,
    num_tokens: int = LONG_TOKENS,
) -> tuple[list[str], dict[str, Any]]:
    """The pieces of a greedy answer of exactly `num_tokens` tokens, and the extension."""
    pieces: list[str] = []
    extension: dict[str, Any] = {}
    stream = service.client.chat.completions.create(
        model="demo",
        messages=messages,
        temperature=0,
        max_tokens=num_tokens,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ignore_eos": True},
        extra_headers={"x-epidote-timings": "1"},
    )
    for chunk in stream:
        if chunk.usage is not None:
            assert chunk.usage.completion_tokens == num_tokens
        for choice in chunk.choices:
            if choice.delta.content:
                pieces.append(choice.delta.content)
                if started is not None and len(pieces) == 3:
                    started.set()
        extension = (chunk.model_extra or {}).get("epidote") or extension
    return pieces, extension


@contextlib.contextmanager
def load(service: Service, num_streams: int = 2) -> Iterator[list[str]]:
    """Long answers one after the other in `num_streams` threads; yields the failures."""
    questions = [text_question(f"Question {n}: what is 2 + {n}?") for n in range(num_streams)]
    questions[0] = image_question()
    truth = ["".join(long_answer(service, question)[0]) for question in questions]
    failures: list[str] = []
    done: list[int] = []
    stop = threading.Event()

    def ask(number: int) -> None:
        while not stop.is_set():
            try:
                text = "".join(long_answer(service, questions[number])[0])
            except Exception as error:  # collected: the test fails with all of them
                failures.append(f"stream {number}: {error!r}")
                return
            if text != truth[number]:
                failures.append(f"stream {number}: {text!r} instead of {truth[number]!r}")
            done.append(number)

    with ThreadPoolExecutor(num_streams) as pool:
        for number in range(num_streams):
            pool.submit(ask, number)
        try:
            yield failures
            enough = time.monotonic() + PATIENCE_S
            while len(done) < num_streams and not failures and time.monotonic() < enough:
                time.sleep(0.05)
        finally:
            stop.set()
    assert failures == []
    assert len(done) >= num_streams


def test_text_and_pictures_are_answered_by_separate_workers(service: Service):
    assert service.roles() == SPLIT
    for messages, stages in (
        (text_question("What is 2 + 3?"), {"prefill", "decode"}),
        (image_question(), {"encode", "prefill", "decode"}),
    ):
        pieces, extension = long_answer(service, messages)
        assert len(pieces) > 5, "not streamed"
        served = {s["stage"]: s["worker"] for s in extension["stages"]}
        assert stages <= set(served)
        assert len({served[stage] for stage in stages}) == len(stages)
        whole = service.client.chat.completions.create(
            model="demo",
            messages=messages,
            temperature=0,
            max_tokens=LONG_TOKENS,
            extra_body={"ignore_eos": True},
        )
        assert whole.choices[0].message.content == "".join(pieces)


def test_a_wrong_key_opens_nothing(service: Service):
    for path in ("/v1/models", "/admin/fleet"):
        reply = httpx.get(service.url + path, headers={"authorization": "Bearer wrong"})
        assert reply.status_code == 401


def test_nothing_listens_beyond_loopback(service: Service):
    """Ray and Serve would by themselves: on every interface of the host."""
    addresses = {
        address
        for process in descendants(service.process.pid) | {(service.process.pid, 0)}
        for address in traces.listening(process[0])
    }
    assert addresses
    assert {a for a in addresses if not a.endswith(("0100007F", "01000000"))} == set()


def test_roles_are_set_by_the_command_line_while_requests_run(service: Service):
    with load(service):
        for split in ("encode=1,prefill=2,decode=1", "encode=2,prefill=1,decode=1"):
            out = epidote(service, "roles", "set", split)
            assert out.endswith(f"{split}\n"), out
            print(out, end="")
        epidote(service, "roles", "set", "encode=1,prefill=1,decode=2")
    assert service.roles() == SPLIT


def test_a_request_outlives_a_killed_worker_of_each_stage_which_comes_back_in_the_missing_role(
    service: Service,
):
    for seed, role in enumerate(("encode", "prefill"), 10):
        question = image_question(seed=seed)  # a picture that no cache has
        victim = service.pid_of(role)
        os.kill(victim, signal.SIGSTOP)  # its part of the work begins, and never ends
        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(long_answer, service, question) for _ in range(4)]
            service.wait_for_in_flight(4)
            service.wait_for_work()
            service.note_processes()
            os.kill(victim, signal.SIGKILL)
            answers = [stream.result(timeout=PATIENCE_S) for stream in streams]
        assert num_resumes(service, question, answers) > 0
        print(f"{role} killed: whole again after {service.wait_for(SPLIT):.1f} s")
        service.note_processes()


def test_streams_outlive_a_killed_decode_worker(service: Service):
    question = image_question(seed=12)
    for _ in range(5):  # all answers may have been computed before the third piece of one was read
        started = threading.Event()
        victim = service.pid_of("decode")
        with ThreadPoolExecutor(4) as pool:  # enough streams for every decode worker
            streams = [
                pool.submit(long_answer, service, question, started, LONGER_TOKENS)
                for _ in range(4)
            ]
            assert started.wait(PATIENCE_S)
            os.kill(victim, signal.SIGKILL)
            answers = [stream.result(timeout=PATIENCE_S) for stream in streams]
        resumed = num_resumes(service, question, answers, LONGER_TOKENS)
        print(f"decode killed: whole again after {service.wait_for(SPLIT):.1f} s")
        service.note_processes()
        if resumed:
            return
    pytest.fail("no stream was ever cut")


def num_resumes(
    service: Service,
    question: list[dict[str, Any]],
    answers: list[tuple[list[str], Any]],
    num_tokens: int = LONG_TOKENS,
) -> int:
    """How often the answers, which must be right, were taken up by another worker."""
    truth, _ = long_answer(service, question, num_tokens=num_tokens)
    for pieces, extension in answers:
        assert "".join(pieces) == "".join(truth), extension
    return sum(extension["num_resumes"] for _, extension in answers)


def test_the_register_may_die_while_requests_run(service: Service):
    service.note_processes()
    register = next(
        p for p in service.seen if "ServeReplica:epidote:Fleet" in traces.command_line(p)
    )
    with load(service):
        os.kill(register[0], signal.SIGKILL)
        started_s = time.monotonic()
        while True:  # decided by the next register, from what the workers remembered
            reply = service.http.put("/admin/roles", json={"encode": 1, "prefill": 2, "decode": 1})
            if reply.status_code == 200:
                break
            assert time.monotonic() - started_s < RECOVER_S, reply.text
            time.sleep(0.5)
        print(f"register killed: decides again after {time.monotonic() - started_s:.1f} s")
    service.wait_for({**SPLIT, "prefill": 2, "decode": 1})
    assert service.http.put("/admin/roles", json=SPLIT).status_code == 200


def test_workers_are_added_and_removed_while_requests_run(service: Service):
    with load(service):
        epidote(service, "scale", "5")
        took_s = service.wait_for({**SPLIT, "decode": 3})
        print(f"4 to 5 workers: {took_s:.1f} s")
        service.note_processes()
        epidote(service, "scale", "3")
        took_s = service.wait_for({**SPLIT, "decode": 1})
        print(f"5 to 3 workers: {took_s:.1f} s")


def test_nothing_is_held_when_nothing_runs(service: Service):
    deadline_s = time.monotonic() + PATIENCE_S  # closed streams are given up within moments
    while True:
        sound = service.http.get("/admin/conservation").json()
        busy = [w for w in service.fleet() if w["load"]["num_running"] or w["load"]["num_waiting"]]
        if (sound["is_sound"] and not busy) or time.monotonic() > deadline_s:
            break
        time.sleep(0.2)
    assert sound["is_sound"], json.dumps(sound)
    assert busy == []
    assert len(sound["workers"]) == 3


def test_ctrl_c_ends_everything_it_started(service: Service):
    service.note_processes()
    pids = {process[0] for process in service.seen}
    assert any(
        "ServeReplica:epidote:Engine" in traces.command_line(process) for process in service.seen
    )
    body = {"model": "demo", "prompt": "red circle", "max_tokens": 200, "ignore_eos": True}
    with ThreadPoolExecutor() as threads:
        asked = threads.submit(service.http.post, "/v1/completions", json=body)
        while not asked.done() and not any(w["load"]["num_running"] for w in service.fleet()):
            time.sleep(0.05)
        started_s = time.monotonic()
        service.process.send_signal(signal.SIGINT)
        answer = asked.result(PATIENCE_S)
    # on a slow machine the answer may take longer than it is waited for
    assert answer.status_code == 200 or answer.json()["error"]["code"] == "stopping"
    assert service.process.wait(PATIENCE_S) == 0
    print(f"stopped after {time.monotonic() - started_s:.1f} s")
    assert [process for process in service.seen if is_running(process)] == []
    assert not service.directory.exists()
    left = traces.shared_memory() - service.shared_before
    assert [name for name in left if traces.is_named_after(name, pids)] == []


def epidote(service: Service, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "epidote_workers.cli", *arguments],
        env={**os.environ, "EPIDOTE_URL": service.url, "EPIDOTE_API_KEY": KEY},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
