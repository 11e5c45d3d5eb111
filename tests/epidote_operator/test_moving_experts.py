"""Experts of a real worker of two ranks are moved by the operator while it answers requests.

Everything is real: router, counts, gateway, observation, plan, order, weights read, tables changed.
"""

import asyncio
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import uvicorn

from epidote_core.expert_placement import placement_digest
from epidote_core.generation import GenerateRequest, Route
from epidote_core.roles import WorkerState
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeRenderer
from epidote_gateway.settings import GatewaySettings
from epidote_operator.local import LocalOperator, LocalTick
from epidote_operator.spec.parsing import parse_service
from epidote_planner.decision import MoveExperts
from epidote_planner.experts import ExpertMove
from epidote_workers.client import FleetClient
from epidote_workers.local_process import started_together
from epidote_workers.worker_process import ProcessSettings
from epidote_workers.worker_settings import WorkerSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
SPEC = {
    "model": {"uri": "builtin://demo", "modalities": ["Text"]},
    "pool": {"device": "Cpu", "tensorParallelSize": 2, "minWorkers": 2, "maxWorkers": 2},
    "slo": {"ttftMilliseconds": 5000, "tpotMilliseconds": 500},
    "experts": {"parallel": True, "redundantExperts": 3, "minGainPercent": 100},
}
PROMPT = tuple(range(40, 70))


def asked(number: int, salt: str) -> GenerateRequest:
    return GenerateRequest(
        request_id=f"{salt} {number}",
        prompt_token_ids=(5 + number, *PROMPT),
        sampling=SamplingParams(max_tokens=16, temperature=0.0, ignore_eos=True),
        cache_salt=f"{salt} {number}",  # computed again each time, and counted
    )


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    path = tmp_path_factory.mktemp("model")
    save_tiny_model(
        path, Architecture.QWEN3_MOE, seed=15
    )  # seven experts in each layer that has some
    return EngineConfig(
        model=str(path), dtype="float32", num_kv_blocks=96, count_expert_tokens=True
    )


@pytest.fixture
def worker(config: EngineConfig, tmp_path: Path) -> Iterator[str]:
    """The address of a worker whose two ranks hold whole experts."""
    settings = ProcessSettings(
        worker_id="a",
        engine=replace(config, expert_parallel=True, num_redundant_experts=3),
        worker=WorkerSettings(socket_dir=tmp_path, tensor_parallel_size=2),
    )
    with started_together([settings]) as workers:
        yield workers["a"].address


async def nobody(num_workers: int) -> None:
    """There is one worker, however many are asked for."""


async def answer(client: FleetClient, request: GenerateRequest) -> tuple[int, ...]:
    stream = client.generate(request, Route(prefill="a", decode="a"))
    return tuple([t async for chunks in stream for chunk in chunks for t in chunk.token_ids])


def moves_of(ticks: list[LocalTick]) -> list[tuple[LocalTick, ExpertMove]]:
    """What was ordered, and when."""
    return [
        (shown, action.move)
        for shown in ticks
        if shown.tick.plan is not None
        for action in shown.tick.plan.actions
        if isinstance(action, MoveExperts)
    ]


async def moved_while_answering(
    address: str, wanted: list[tuple[int, ...]]
) -> tuple[list[LocalTick], int]:
    """Ticks until experts have moved, with requests all the time; every answer is looked at."""
    client = FleetClient(scale=nobody)
    client.update_members([("a", address)])
    ticks: list[LocalTick] = []
    num_answers = 0

    async def ask_for_ever() -> None:
        nonlocal num_answers
        while True:
            salt = str(num_answers)
            requests = [asked(number, salt) for number in range(len(wanted))]
            got = await asyncio.gather(*(answer(client, request) for request in requests))
            assert list(got) == wanted
            num_answers += len(got)

    async def operate(url: str) -> None:
        async with LocalOperator.at(url, None, parse_service(SPEC)) as operator:
            while True:
                ticks.append(await operator.tick(time.time()))
                ordered = bool(moves_of(ticks[-1:]))
                while (experts := client.workers()[0].experts) is None or (
                    ordered and not experts.target
                ):  # real ticks are further apart than a worker's reports on any machine
                    await asyncio.sleep(0.05)
                if experts.num_moves and not experts.is_moving:
                    ticks.append(await operator.tick(time.time()))
                    return
                await asyncio.sleep(1.0)

    app = create_app(client, FakeRenderer(), GatewaySettings())
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", ws="none"))
        serving = asyncio.create_task(server.serve(sockets=[sock]))
        try:
            async with asyncio.timeout(PATIENCE_S):
                while client.workers()[0].state is not WorkerState.ROUTABLE or not server.started:
                    await asyncio.sleep(0.01)
                asking = asyncio.create_task(ask_for_ever())
                operating = asyncio.create_task(
                    operate(f"http://127.0.0.1:{sock.getsockname()[1]}")
                )
                try:
                    await asyncio.wait([asking, operating], return_when=asyncio.FIRST_COMPLETED)
                    if asking.done():
                        asking.result()
                    await operating
                finally:
                    asking.cancel()
                    operating.cancel()
                    await asyncio.gather(asking, operating, return_exceptions=True)
        finally:
            server.should_exit = True
            await serving
            await client.stop()
    return ticks, num_answers


def test_skewed_experts_are_moved_by_the_operator_and_every_answer_stays_the_same(
    config: EngineConfig, worker: str
) -> None:
    requests = [asked(number, "whole") for number in range(4)]
    whole = serve(Engine(config), requests)
    wanted = [tuple(whole[request.request_id, 0].token_ids) for request in requests]
    ticks, num_answers = asyncio.run(moved_while_answering(worker, wanted))
    assert num_answers > 0
    moves = moves_of(ticks)
    assert len(moves) == 1  # nothing is moved while it moves, nor right after
    shown, move = moves[0]
    decision, load = shown.status.decisions[0], shown.tick.observation.experts
    assert any(f"{move.num_moved} expert slots to {move.name}" in a for a in decision.actions)
    assert f"{move.num_moved} expert slots of each worker move" in decision.text
    conditions = [
        (condition.reason, condition.status.value)
        for shown in ticks
        for condition in shown.status.conditions
        if condition.type == "ExpertsPlaced"
    ]
    assert conditions[-1] == ("Placed", "True")
    assert conditions[0][0] == "Placed"  # as they began
    assert placement_digest(move.placement) == move.name
    assert load is not None
    assert move.imbalance < load.imbalance
