"""Workers whose model is cut over two processes: they answer as whole ones do, alone and split.

Real processes: gloo between the ranks here, NCCL on GPUs.
"""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from epidote_core.errors import WorkerLost
from epidote_core.generation import GenerateRequest, MediaPixels, Route
from epidote_core.roles import Role, WorkerState
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model
from epidote_gateway.backend import SwitchOutcome
from epidote_workers.client import FleetClient
from epidote_workers.in_process_fleet import InProcessFleet, until
from epidote_workers.local_process import Started, started_together
from epidote_workers.process_tree import Process, descendants, is_running
from epidote_workers.worker_process import ProcessSettings
from epidote_workers.worker_settings import WorkerSettings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_S = 240.0
ROLES = {"a": Role.ENCODE, "p": Role.PREFILL, "d": Role.DECODE}  # "a" becomes ALL
SIZES = {
    "dtype": "float32",
    "kv_cache_dtype": "int8",
    "num_kv_blocks": 96,
    "num_media_rows": 256,
    "chunk_tokens": 48,
}


@dataclass
class Ranked:
    """Processes by worker id, and what they are asked."""

    workers: dict[str, Started]
    sockets: Path
    config: EngineConfig
    requests: list[GenerateRequest]
    pixels: list[MediaPixels]

    def followers(self, worker_id: str) -> set[Process]:
        return descendants(self.workers[worker_id].process.pid)


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranked]:
    path = tmp_path_factory.mktemp("model")
    save_tiny_model(path, Architecture.QWEN3_VL, seed=10)  # two KV heads
    sockets = tmp_path_factory.mktemp("s")
    config = EngineConfig(model=str(path), **SIZES)
    settings = [
        ProcessSettings(
            worker_id=worker_id,
            engine=replace(config, role=role),
            worker=WorkerSettings(
                socket_dir=sockets,
                tensor_parallel_size=2,
                call_timeout_s=60.0,
                reserve_timeout_s=PATIENCE_S,
                media_timeout_s=PATIENCE_S,
            ),
        )
        for worker_id, role in ROLES.items()
    ]
    with started_together(settings) as workers:
        requests, pixels = asked(str(path))
        yield Ranked(workers, sockets, config, requests, pixels)


def asked(path: str) -> tuple[list[GenerateRequest], list[MediaPixels]]:
    """Texts, pictures, a prompt of several chunks, and random draws."""
    processor = PromptProcessor.from_model(path)
    pixels = [processor.prepare_image(noise_image(90, 60, seed=n), f"picture {n}") for n in (1, 2)]
    contents = [
        ([], "hello"),
        (pixels[:1], "what is this"),
        ([], "a long prompt " * 9),
        (pixels, "and these"),
    ]
    requests = []
    for number, (pictures, text) in enumerate(contents):
        content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
        prompt = processor.render_chat([{"role": "user", "content": content}], media=pictures)
        sampling = SamplingParams(
            max_tokens=10, temperature=0.8 * (number % 2), seed=number, ignore_eos=True
        )
        requests.append(
            GenerateRequest(
                request_id=str(number),
                prompt_token_ids=prompt.token_ids,
                media=prompt.media,
                sampling=sampling,
            )
        )
    return requests, pixels


async def told(
    ranked: Ranked, prefill: str, decode: str, encode: str, workers: str
) -> list[list[int]]:
    """The tokens of every request, all asked at once over this route."""
    client = FleetClient()
    try:
        client.update_members([(name, ranked.workers[name].address) for name in workers])
        async with asyncio.timeout(PATIENCE_S):
            while not all(view.state is WorkerState.ROUTABLE for view in client.workers()):
                await asyncio.sleep(0.01)

            async def answer(request: GenerateRequest) -> list[int]:
                route = Route(
                    prefill=prefill,
                    decode=decode,
                    encode=tuple((span.key, encode) for span in request.media),
                )
                stream = client.generate(request, route)
                return [t async for chunks in stream for chunk in chunks for t in chunk.token_ids]

            for pixels in ranked.pixels:
                await client.encode(encode, pixels, request_id="0")
            answers = await asyncio.gather(*map(answer, ranked.requests))
            found = await client.conservation()
            while any(found.values()):
                await asyncio.sleep(0.05)
                found = await client.conservation()
            assert all(errors is not None for errors in found.values())
            return answers
    finally:
        await client.stop()


def wanted(ranked: Ranked) -> list[list[int]]:
    """What the whole model says."""
    answers = serve(Engine(ranked.config), ranked.requests, ranked.pixels)
    return [answers[request.request_id, 0].token_ids for request in ranked.requests]


def test_a_role_switch_loads_the_language_model_on_every_rank(ranked: Ranked) -> None:
    async def switched() -> SwitchOutcome:
        client = FleetClient()
        try:
            client.update_members([("a", ranked.workers["a"].address)])
            async with asyncio.timeout(PATIENCE_S):
                while client.workers()[0].state is not WorkerState.ROUTABLE:
                    await asyncio.sleep(0.01)
            return await client.switch_role("a", Role.ALL, deadline_s=PATIENCE_S)
        finally:
            await client.stop()

    outcome = asyncio.run(switched())
    assert outcome.ok, outcome.message


def test_one_worker_of_two_ranks_says_what_the_whole_model_says(ranked: Ranked) -> None:
    assert asyncio.run(told(ranked, "a", "a", "a", "a")) == wanted(ranked)


def test_prefill_and_decode_of_two_ranks_each_hand_over_every_ranks_kv(ranked: Ranked) -> None:
    """Embeddings come from a third worker, into the media pools of both ranks."""
    assert asyncio.run(told(ranked, "p", "d", "a", "pda")) == wanted(ranked)


def test_kv_of_a_worker_that_is_cut_otherwise_is_refused(ranked: Ranked) -> None:
    async def refused() -> str:
        fleet = InProcessFleet(ranked.sockets, ranked.config)
        try:
            await fleet.add("whole", Role.PREFILL)
            views = [(name, fleet.workers[name].address) for name in fleet.workers]
            fleet.client.update_members([*views, ("d", ranked.workers["d"].address)])
            await until(
                lambda: all(v.state is WorkerState.ROUTABLE for v in fleet.client.workers())
            )
            route = Route(prefill="whole", decode="d")
            request = replace(ranked.requests[0], cache_salt="nobody has its blocks")
            with pytest.raises(WorkerLost) as lost:
                async for _ in fleet.client.generate(request, route):
                    pass
            return str(lost.value)
        finally:
            await fleet.stop()

    assert "scales by rank there" in asyncio.run(refused())


def test_a_rank_that_dies_ends_its_worker_with_the_reason(ranked: Ranked) -> None:
    (follower,) = ranked.followers("d")
    os.kill(follower[0], signal.SIGKILL)
    process = ranked.workers["d"].process
    assert process.wait(PATIENCE_S) != 0
    assert process.stderr is not None
    errors = process.stderr.read().decode()
    assert f"rank 1 of 2 (pid {follower[0]}) ended with signal SIGKILL" in errors


def test_no_rank_outlives_its_leader(ranked: Ranked) -> None:
    followers = ranked.followers("p")
    assert len(followers) == 1
    ranked.workers["p"].process.kill()
    deadline_s = time.monotonic() + PATIENCE_S
    while any(is_running(follower) for follower in followers):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_worker_that_stops_takes_its_ranks_along(ranked: Ranked) -> None:
    followers = ranked.followers("a")
    process = ranked.workers["a"].process
    assert process.stdin is not None
    process.stdin.close()
    process.wait(PATIENCE_S)
    deadline_s = time.monotonic() + PATIENCE_S
    while any(is_running(follower) for follower in followers):
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
