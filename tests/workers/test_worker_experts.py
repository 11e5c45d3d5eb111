"""Workers whose ranks hold whole experts: prefill on one, decode on another, experts of both on the
move. Real processes: gloo between the ranks here, NCCL on GPUs.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from epidote_core.expert_placement import Placement
from epidote_core.generation import GenerateRequest, Route
from epidote_core.roles import Role, WorkerState
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_workers.client import FleetClient
from epidote_workers.local_process import started_together
from epidote_workers.worker_process import ProcessSettings
from epidote_workers.worker_settings import WorkerSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
ROLES = {"p": Role.PREFILL, "d": Role.DECODE}
SIZES: dict[str, Any] = {"dtype": "float32", "num_kv_blocks": 96, "chunk_tokens": 48}
TARGETS: tuple[Placement, ...] = (  # seven experts, one redundant slot, three layers
    ((6, 5, 4, 3, 2, 1, 0, 0),) * 3,
    ((1, 2, 3, 4, 5, 6, 0, 5), (0, 1, 2, 3, 4, 5, 6, 3), (6, 6, 0, 1, 2, 3, 4, 5)),
    ((0, 2, 4, 6, 1, 3, 5, 6),) * 3,
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> EngineConfig:
    path = tmp_path_factory.mktemp("model")
    save_tiny_model(path, Architecture.QWEN3_MOE, seed=15)
    return EngineConfig(
        model=str(path), expert_parallel=True, num_redundant_experts=1, count_expert_tokens=True,
        **SIZES,
    )  # fmt: skip


@pytest.fixture(scope="module")
def addresses(
    config: EngineConfig, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    sockets = tmp_path_factory.mktemp("s")
    settings = [
        ProcessSettings(
            worker_id=name,
            engine=replace(config, role=role),
            worker=WorkerSettings(
                socket_dir=sockets,
                tensor_parallel_size=2,
                call_timeout_s=60.0,
                reserve_timeout_s=PATIENCE_S,
            ),
        )
        for name, role in ROLES.items()
    ]
    with started_together(settings) as workers:
        yield {name: worker.address for name, worker in workers.items()}


def requests(tag: str) -> list[GenerateRequest]:
    prompts = [(5, 6, 7), tuple(range(40, 130)), (200,), (9, 9, 9, 1)]
    return [
        GenerateRequest(
            request_id=f"{tag}{number}",
            prompt_token_ids=prompt,
            cache_salt=tag,  # every prompt is computed again
            sampling=SamplingParams(
                max_tokens=24, temperature=0.8 * (number % 2), seed=number, ignore_eos=True
            ),
        )
        for number, prompt in enumerate(prompts)
    ]


async def answers_in_moves(addresses: dict[str, str]) -> tuple[list[list[list[int]]], int]:
    """Tokens of each round of requests, while one placement after another is ordered; and moves."""
    client, rounds = FleetClient(), []
    try:
        client.update_members(list(addresses.items()))
        async with asyncio.timeout(PATIENCE_S):
            while not all(view.state is WorkerState.ROUTABLE for view in client.workers()):
                await asyncio.sleep(0.01)

            async def answer(request: GenerateRequest) -> list[int]:
                stream = client.generate(request, Route(prefill="p", decode="d"))
                return [t async for chunks in stream for chunk in chunks for t in chunk.token_ids]

            for target in TARGETS:
                ordered = False
                while not ordered or not in_force(client, target):
                    asked = [
                        asyncio.create_task(answer(request))
                        for request in requests(f"round {len(rounds)} ")
                    ]
                    if not ordered:
                        await client.place_experts(target)
                        ordered = True
                    rounds.append(await asyncio.gather(*asked))
            found = await client.conservation()
            while any(found.values()):
                await asyncio.sleep(0.05)
                found = await client.conservation()
            views = [view.experts for view in client.workers()]
            return rounds, min(view.num_moves for view in views if view is not None)
    finally:
        await client.stop()


def in_force(client: FleetClient, target: Placement) -> bool:
    views = [view.experts for view in client.workers()]
    return all(view is not None and view.placement == target for view in views)


def test_streams_go_on_unchanged_while_the_experts_of_their_workers_move(
    config: EngineConfig, addresses: dict[str, str]
) -> None:
    rounds, num_moves = asyncio.run(answers_in_moves(addresses))
    whole = serve(Engine(EngineConfig(model=config.model, **SIZES)), requests(""))
    wanted = [whole[str(number), 0].token_ids for number in range(4)]
    assert len(rounds) >= len(TARGETS)
    assert all(found == wanted for found in rounds)
    assert num_moves == len(TARGETS)
