"""This file is about workers as processes of their own: kill -9 of each role in mid-stream."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
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
    TokenChunk,
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


HOLDS = {  # each is caught in the middle of its work, however fast or slow the machine is
    "p": FakeSettings(hold_prefills=True),
    "d": FakeSettings(step_s=0.002, hold_at_tokens=20),
}


def process_of(directory: Path, worker_id: str, role: Role, *, apart: bool = False) -> LocalProcess:
    """`apart`: on a host of its own, as far as it knows."""
    worker = WorkerSettings(socket_dir=directory, call_timeout_s=60.0)
    if apart:
        worker = replace(worker, tcp_host="127.0.0.1", node_id=worker_id)
    return LocalProcess(
        ProcessSettings(
            worker_id=worker_id,
            engine=EngineConfig(model="pretend", role=role, num_kv_blocks=128, num_media_rows=64),
            worker=worker,
            fake=HOLDS.get(worker_id, FakeSettings(step_s=0.002)),
        )
    )


async def until(condition: Callable[[], bool], timeout_s: float = 60.0) -> None:
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


async def read(stream: AsyncIterator[list[TokenChunk]], done: list[int]) -> str:
    """Append tokens to `done`; the worker that was lost, "" at a good end."""
    try:
        async for chunks in stream:
            done += [token for chunk in chunks for token in chunk.token_ids]
    except WorkerLost as lost:
        return lost.worker_id
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("apart", [False, True], ids=["one_host", "hosts_apart"])
async def test_kill_minus_nine_of_each_role_in_mid_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, apart: bool
) -> None:
    """The stream ends at once, and goes on elsewhere without a gap or a repeat.

    Hosts apart: by NIXL where it is installed, else packed and sent.
    """
    monkeypatch.setenv("EPIDOTE_RPC_SECRET", "between hosts")
    monkeypatch.setenv("UCX_TLS", "tcp")
    monkeypatch.setenv("UCX_NET_DEVICES", "lo")
    victims = {Stage.ENCODE: "e", Stage.PREFILL: "p", Stage.DECODE: "d"}
    fleet = [
        process_of(tmp_path, worker_id, Role(stage), apart=apart)
        for stage, worker_id in victims.items()
    ]
    fleet.append(process_of(tmp_path, "a", Role.ALL, apart=apart))
    async with processes(*fleet) as (client, by_id):
        for view in client.workers():
            maps = Path(f"/proc/{view.pid}/maps").read_text()
            assert "/memfd:epidote-kv" in maps
            assert "/dev/shm/" not in maps, "pools have no names: the kernel frees them"
        for stage, victim in victims.items():
            serving = {**dict.fromkeys(victims, "a"), stage: victim}
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
                async with aclosing(client.generate(rest, route)) as stream:
                    reading = asyncio.create_task(read(stream, done))
                    await asyncio.sleep(0.05)
                    if stage is Stage.ENCODE and not losses:
                        await by_id[victim].kill()  # while prefill waits for its embedding
                    else:
                        await client.encode(serving[Stage.ENCODE], PICTURE, request_id="r")
                    if stage is Stage.PREFILL and not losses:
                        await asyncio.sleep(0.05)
                        assert not done
                        await by_id[victim].kill()
                    if stage is Stage.DECODE and not losses:
                        await until(lambda: len(done) >= 20)  # noqa: B023
                        await by_id[victim].kill()
                    async with asyncio.timeout(60.0):
                        lost = await reading
                if lost:
                    losses.append(lost)
                    serving[stage] = "a"
            assert done == answer(request, [PICTURE])
            assert losses == [victim]
        await until(lambda: sum(v.state is WorkerState.FAILED for v in client.workers()) == 3)
        async with asyncio.timeout(60.0):
            while await client.conservation() != {"a": ()}:  # what has just ended is given up soon
                await asyncio.sleep(0.05)
        await by_id["a"].part()  # what the kernel does when the parent dies
