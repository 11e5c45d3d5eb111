"""This file is about workers as processes of their own: kill -9 of each role in mid-stream."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from epidote_core.errors import WorkerLost
from epidote_core.generation import (
    Choice,
    GenerateRequest,
    MediaKind,
    MediaPixels,
    MediaSpan,
    Route,
)
from epidote_core.roles import Role, Stage, WorkerState
from epidote_core.sampling import SamplingParams
from epidote_engine.settings import EngineConfig
from epidote_workers.client import FleetClient
from epidote_workers.fake_tokens import answer
from epidote_workers.local_process import LocalProcess
from epidote_workers.worker_process import FakeSettings, ProcessSettings
from epidote_workers.worker_settings import WorkerSettings

PICTURE = MediaPixels(
    key="picture",
    kind=MediaKind.IMAGE,
    num_frames=1,
    height=4,
    width=4,
    grid_thw=(1, 1, 9),
    num_tokens=9,
    data=bytes(range(48)),
)


def process_of(directory: Path, worker_id: str, role: Role) -> LocalProcess:
    return LocalProcess(
        ProcessSettings(
            worker_id=worker_id,
            engine=EngineConfig(model="pretend", role=role, num_kv_blocks=128, num_media_rows=64),
            worker=WorkerSettings(socket_dir=directory),
            fake=FakeSettings(step_s=0.004, layer_s=0.002),
        )
    )


async def until(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.005)


@asynccontextmanager
async def processes(
    *wanted: LocalProcess,
) -> AsyncIterator[tuple[FleetClient, dict[str, LocalProcess]]]:
    client = FleetClient()
    try:
        await asyncio.gather(*(process.start() for process in wanted))
        client.update_members([(process.worker_id, process.address) for process in wanted])
        await until(lambda: all(view.state is WorkerState.ROUTABLE for view in client.workers()))
        yield client, {process.worker_id: process for process in wanted}
    finally:
        await client.stop()
        await asyncio.gather(*(process.stop() for process in wanted))


def request_of(tokens: int = 60) -> GenerateRequest:
    ids = (*range(200), *([7] * PICTURE.num_tokens), 1, 2, 3)
    span = MediaSpan(
        key="picture",
        kind=MediaKind.IMAGE,
        offset=200,
        num_tokens=PICTURE.num_tokens,
        grid_thw=PICTURE.grid_thw,
    )
    return GenerateRequest(
        request_id="r",
        prompt_token_ids=ids,
        sampling=SamplingParams(max_tokens=tokens, seed=3),
        media=(span,),
    )


@pytest.mark.slow
async def test_kill_minus_nine_of_each_role_in_mid_stream(tmp_path: Path) -> None:
    """The stream ends at once, and goes on elsewhere without a gap or a repeat."""
    names = set(os.listdir("/dev/shm"))
    first = {Stage.ENCODE: "e", Stage.PREFILL: "p", Stage.DECODE: "d"}
    fleet = [process_of(tmp_path, worker_id, Role(stage)) for stage, worker_id in first.items()]
    fleet.append(process_of(tmp_path, "a", Role.ALL))
    async with processes(*fleet) as (client, by_id):
        serving = dict(first)
        for stage, victim in first.items():
            kill = by_id[victim].kill
            request = replace(request_of(), cache_salt=victim)
            done: list[int] = []
            losses: list[str] = []
            while len(done) < request.sampling.max_tokens:
                route = Route(
                    prefill=serving[Stage.PREFILL],
                    decode=serving[Stage.DECODE],
                    encode=(("picture", serving[Stage.ENCODE]),),
                )
                rest = replace(request, choices=(Choice(emitted_token_ids=tuple(done)),))
                stream = client.generate(rest, route)
                pending = asyncio.ensure_future(anext(stream))
                try:
                    await asyncio.sleep(0.01)
                    if stage is Stage.ENCODE and not losses:
                        await kill()  # while prefill waits for its embedding
                    else:
                        await client.encode(serving[Stage.ENCODE], PICTURE, request_id="r")
                    if stage is Stage.PREFILL and not losses:
                        await asyncio.sleep(0.01)  # it computes for some 20 ms
                        await kill()
                    async with asyncio.timeout(5.0):
                        while True:
                            done += [t for chunk in await pending for t in chunk.token_ids]
                            if stage is Stage.DECODE and not losses and len(done) >= 20:
                                await kill()
                            pending = asyncio.ensure_future(anext(stream))
                except StopAsyncIteration:
                    pass
                except WorkerLost as lost:
                    losses.append(lost.worker_id)
                    serving[stage] = "a"
                finally:
                    pending.cancel()
                    await asyncio.gather(pending, return_exceptions=True)
                    await stream.aclose()
            assert done == answer(request, [PICTURE])
            assert losses == [victim]
        await until(lambda: sum(v.state is WorkerState.FAILED for v in client.workers()) == 3)
        assert await client.conservation() == {"a": ()}
        await by_id["a"].part()  # what the kernel does when the parent dies
    assert set(os.listdir("/dev/shm")) <= names
