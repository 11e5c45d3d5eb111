"""The load generator before the real gateway, workers and demo model: it knows who is right.

Four workers with real engines in this process, encode, prefill and decode apart; Ray is left out.
"""

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from typer.testing import CliRunner

import epidote_workers
from epidote_core.roles import Role
from epidote_engine.settings import EngineConfig
from epidote_gateway.app import create_app
from epidote_gateway.settings import GatewaySettings
from epidote_loadgen.config.building import build_plan
from epidote_loadgen.config.loading import check
from epidote_loadgen.config.yaml_source import YamlSource
from epidote_loadgen.outputs.document import document
from epidote_loadgen.plan import RunPlan
from epidote_loadgen.records import Progress
from epidote_loadgen.report.page import page
from epidote_loadgen.runner.running import run
from epidote_loadgen.verdict.verdict import judge
from epidote_loadgen.watch.building import build_watcher
from epidote_workers.cli import app as epidote
from epidote_workers.client import FleetClient
from epidote_workers.renderer import renderer_of
from epidote_workers.worker import Worker
from epidote_workers.worker_settings import WorkerSettings

MODEL = str(Path(epidote_workers.__file__).parent / "demo_model")
ROLES = (Role.ENCODE, Role.PREFILL, Role.DECODE, Role.DECODE)
AFTER = {"encode": 1, "prefill": 2, "decode": 1}
START_S = 240.0
NUM_REQUESTS = 400  # the role switch has drained and ended before they have

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


async def serve(sock: socket.socket, ready: threading.Event, stop: threading.Event) -> None:
    with tempfile.TemporaryDirectory(prefix="ep") as sockets:
        workers = [
            Worker(
                f"{role}-{number}",
                EngineConfig(model=MODEL, role=role, num_kv_blocks=512, num_media_rows=2048),
                WorkerSettings(socket_dir=Path(sockets) / str(number)),
            )
            for number, role in enumerate(ROLES)
        ]
        for worker in workers:
            await worker.start()
        client = FleetClient()
        client.update_members([(worker.worker_id, worker.address) for worker in workers])
        app = create_app(client, renderer_of(MODEL, None), GatewaySettings())
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        while not stop.is_set():
            if server.started and not ready.is_set():
                ready.set()
            await asyncio.sleep(0.05)
        server.should_exit = True
        await serving
        await client.stop()
        for worker in workers:
            await worker.stop()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    ready, stop = threading.Event(), threading.Event()
    with socket.socket() as sock:  # bound from here on: nobody else gets the port
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        thread = threading.Thread(target=lambda: asyncio.run(serve(sock, ready, stop)), daemon=True)
        thread.start()
        deadline_s = time.monotonic() + START_S
        while not ready.wait(0.2):
            assert thread.is_alive(), "the service did not start"
            assert time.monotonic() < deadline_s
        yield f"http://127.0.0.1:{port}"
        stop.set()
        thread.join(60.0)


def plan(url: str, classes: dict[str, Any], **more: Any) -> RunPlan:
    values = {
        "seed": 5,
        "target": {"url": url},
        "arrivals": {"kind": "closed", "users": 2, "num_requests": NUM_REQUESTS},
        "classes": classes,
        "slo": {"right": {"objectives": [{"correct": True, "ratio": 0.5}]}},
    } | more
    return build_plan(check(YamlSource(name="test", values=values, lines={})))


def test_answers_about_generated_pictures_are_scored_and_the_fleet_is_watched(url: str) -> None:
    classes = {
        "look": {
            "kind": "questions",
            "weight": 3,
            "images": {"count": 1, "resolutions": ["160x160"], "reuse": {"count": 12}},
        },
        "sums": {"kind": "questions", "images": {"count": 0}},
    }
    watch = {"metrics_url": f"{url}/metrics", "interval_s": 0.2}
    asked = plan(url, classes, watch=watch)
    file = check(
        YamlSource(
            name="test",
            values={
                "target": {"url": url},
                "arrivals": {"rate": 1, "duration_s": 1},
                "classes": classes,
                "watch": watch,
            },
            lines={},
        )
    )
    switched, watcher = threading.Event(), build_watcher(file.watch)
    assert watcher is not None

    def switch_a_role(progress: Progress) -> None:
        seen = watcher.result()["samples"]  # the roles as they were
        if progress.recent and seen and not switched.is_set():
            switched.set()
            done = CliRunner().invoke(
                epidote,
                ["roles", "set", ",".join(f"{r}={n}" for r, n in AFTER.items()), "--url", url],
            )
            assert done.exit_code == 0, done.output

    result = run(asked, watcher=watcher, on_progress=switch_a_role)
    told = document(result, asked.slo, judge(result.records, asked.slo))
    assert told["summary"]["by_status"] == {"ok": NUM_REQUESTS}
    scored = told["scores"]["by_modality"]
    assert scored["image"]["num_scored"] + scored["text"]["num_scored"] == NUM_REQUESTS
    assert scored["image"]["num_scored"] >= NUM_REQUESTS / 2
    # 99 % on held-out questions (see the model's card): a share of 0.9 is out of reach of chance.
    for score in scored.values():
        assert score["num_correct"] >= 0.9 * score["num_scored"]
    workers = [sample["workers"] for sample in told["watch"]["samples"]]
    assert {role: sum(states.values()) for role, states in workers[0].items()} == {
        "encode": 1, "prefill": 1, "decode": 2
    }  # fmt: skip
    assert workers[-1] == {role: {"routable": n} for role, n in AFTER.items()}
    [switch] = [e for e in told["watch"]["events"] if e["kind"] == "switch"]
    assert switch["text"] == "decode → prefill"
    assert 0.0 < switch["at_s"] < result.duration_s
    assert told["elasticity"]["gpu_seconds"] == pytest.approx(4 * result.duration_s, rel=0.02)
    assert told["summary"]["prompt_tokens"] > 0
    assert "Workers by role" in page(told)
