"""This file is about what a node that joins is told and tells, without Ray."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry, Counter

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role
from epidote_engine.settings import EngineConfig
from epidote_workers.cli_worker import _watch
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import until
from epidote_workers.joined_node import JoinedNode, address_towards, parse_head
from epidote_workers.node_settings import NodeSettings
from epidote_workers.node_workers import NodeWorkers
from epidote_workers.probe_app import probe_app
from epidote_workers.process_tree import runs_below
from epidote_workers.ray_environment import (
    HEADLESS_VARIABLE,
    is_loopback,
    joining_environment,
    ray_environment,
    shared_token,
)
from epidote_workers.ray_node import NodeOrder
from epidote_workers.ray_patience import ATTEMPTS, start_patiently
from epidote_workers.rpc.secret import secret_from
from epidote_workers.self_check import tiny_picture
from epidote_workers.sibling_metrics import SiblingMetrics
from epidote_workers.supervisor import StartFailed
from epidote_workers.worker import Worker
from epidote_workers.worker_settings import WorkerSettings


@pytest.mark.parametrize("text", ["", "host", "host:", ":1", "host:0", "host:65536", "host:x"])
def test_a_bad_head_names_the_flag(text: str) -> None:
    with pytest.raises(InvalidRequest, match="--head: must be host:port"):
        parse_head(text)


def test_a_short_or_missing_token_names_the_variable() -> None:
    for token in ("", "short"):
        with pytest.raises(InvalidRequest, match="RAY_AUTH_TOKEN"):
            shared_token({"RAY_AUTH_TOKEN": token})
    assert shared_token({"RAY_AUTH_TOKEN": "t" * 16}) == "t" * 16


def test_fleets_that_share_a_secret_have_tokens_of_their_own() -> None:
    """So Ray refuses a worker that reaches the head of another revision."""
    given = {"RAY_AUTH_TOKEN": "t" * 16}
    old, new = (shared_token({**given, "EPIDOTE_FLEET": f"prod/chat/{n}"}) for n in (1, 2))
    assert len({old, new, given["RAY_AUTH_TOKEN"]}) == 3
    assert old == shared_token({**given, "EPIDOTE_FLEET": "prod/chat/1"})
    told = joining_environment(1, host="10.0.0.5", token=old)
    assert shared_token({**given, "EPIDOTE_FLEET": "prod/chat/1", **told}) == old, "made once"


def test_a_loopback_head_keeps_its_nodes_on_loopback_and_another_does_not() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("::1")
    assert not is_loopback("10.0.0.5")
    assert not is_loopback("head.default.svc")
    here, there = (ray_environment(2, host=host, token="t") for host in ("127.0.0.1", "10.0.0.5"))
    assert (here["EPIDOTE_LOOPBACK_ONLY"], there["EPIDOTE_LOOPBACK_ONLY"]) == ("1", "0")
    assert here["RAY_AUTH_TOKEN"] == there["RAY_AUTH_TOKEN"] == "t"
    assert address_towards("127.0.0.1", 6379) == "127.0.0.1"


def test_a_joined_node_outlives_its_head_for_as_long_as_another_may_take() -> None:
    told = joining_environment(1, host="10.0.0.5", token="t", environ={})
    assert float(told[HEADLESS_VARIABLE]) >= 600.0
    assert (
        joining_environment(1, host="h", token="t", environ={HEADLESS_VARIABLE: "7"})[
            HEADLESS_VARIABLE
        ]
        == "7"
    )
    assert HEADLESS_VARIABLE not in ray_environment(1), "a fleet on one machine ends with its head"


def test_workers_prove_a_secret_made_of_rays_token_unless_they_have_their_own() -> None:
    assert secret_from({}) is None
    made = secret_from({"RAY_AUTH_TOKEN": "t" * 32})
    assert made is not None
    assert b"t" * 8 not in made
    assert secret_from({"RAY_AUTH_TOKEN": "t" * 32, "EPIDOTE_RPC_SECRET": "own"}) == b"own"


def test_what_a_node_tells_its_worker_survives_the_environment() -> None:
    settings = NodeSettings(run_directory="/tmp/x", host="10.0.0.7", name="pod-1")
    assert NodeSettings.from_env(settings.to_env()) == settings
    assert NodeSettings.from_env({}) == NodeSettings()


async def test_probes_follow_the_nodes_worker_from_its_start_to_its_retirement(
    tmp_path: Path,
) -> None:
    retired: list[float] = []
    worker = Worker(
        "w",
        EngineConfig(model="pretend", role=Role.PREFILL, num_kv_blocks=16, num_media_rows=16),
        WorkerSettings(socket_dir=tmp_path, node_id="pod-1"),
        make_engine=FakeEngine,
        tiny_pixels=lambda key: tiny_picture(key, 4, 1),
        retire=lambda deadline_s: _note(retired, deadline_s),
    )
    node, is_well = NodeWorkers(tmp_path), True
    following = asyncio.create_task(node.run())
    app = probe_app(node, is_well=lambda: is_well, model="m")
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://node") as client:
        try:
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/readyz")).status_code == 503
            await worker.start()
            await until(lambda: node.is_ready)
            assert (await client.get("/readyz")).json()["workers"] == {"w": "routable"}
            (told,) = (await client.get("/worker")).json()["workers"]
            assert (told["role"], told["node_id"], told["epoch"]) == ("prefill", "pod-1", 1)
            metrics = (await client.get("/metrics")).text
            assert 'epidote_workers{role="prefill",state="routable"} 1.0' in metrics
            await node.retire(12.0)
            assert retired == [12.0]
            is_well = False
            assert (await client.get("/livez")).status_code == 503
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await worker.stop()


async def _note(retired: list[float], deadline_s: float) -> None:
    retired.append(deadline_s)


async def test_retiring_a_worker_that_died_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "dead.sock").touch()
    node = NodeWorkers(tmp_path)
    node.look()
    await node.retire(1.0)
    await node.client.stop()


async def test_siblings_gather_each_other_and_sweep_the_dead(tmp_path: Path) -> None:
    others = []
    for pid in (1, 2):
        registry = CollectorRegistry()
        Counter("answers", "x", registry=registry).inc(pid)
        others.append(SiblingMetrics(tmp_path, pid))
        await others[-1].listen(registry)
    dead = tmp_path / "gateway-3.prom"
    script = "import socket, sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])"
    subprocess.run([sys.executable, "-c", script, str(dead)], check=True)
    found = await others[0].gather()
    assert [b"answers_total 2.0" in text for text in found] == [True]
    assert not dead.exists()
    await others[1].close()
    assert await others[0].gather() == []
    await others[0].close()
    assert os.listdir(tmp_path) == []


def test_a_start_that_fails_is_tried_again_and_not_for_ever() -> None:
    tries: list[int] = []
    cleared: list[int] = []

    def start(until: int) -> None:
        tries.append(1)
        if len(tries) < until:
            raise RuntimeError("too slow")

    start_patiently(lambda: start(3), lambda: cleared.append(1))
    assert (len(tries), len(cleared)) == (3, 2)
    tries.clear()
    with pytest.raises(RuntimeError, match="too slow"):
        start_patiently(lambda: start(100), lambda: cleared.append(1))
    assert len(tries) == ATTEMPTS


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_zombie_does_not_run() -> None:
    child = subprocess.Popen(["sleep", "600"])
    try:
        while not runs_below("sleep"):
            time.sleep(0.01)
        child.kill()
        while runs_below("sleep"):  # nobody has waited for it: it is a zombie now
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()


async def test_a_node_that_ends_by_itself_is_said_so_plainly(tmp_path: Path) -> None:
    class Node(JoinedNode):
        def __init__(self) -> None:
            self.run_directory = tmp_path

        def check(self) -> None:
            raise StartFailed("the head is gone")

    with pytest.raises(StartFailed, match="the head is gone"):
        await _watch(Node(), threading.Event(), threading.Event(), "127.0.0.1", 0, 1.0)


def test_a_node_that_waits_for_its_head_ends_with_whoever_started_it(tmp_path: Path) -> None:
    order = NodeOrder(head="127.0.0.1:1", host="127.0.0.1", directory=str(tmp_path))
    node = subprocess.Popen(
        [sys.executable, "-m", "epidote_workers.ray_node"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    node.communicate(order.to_line(), timeout=240.0)  # most of it is Python's imports
    assert node.returncode == 1
