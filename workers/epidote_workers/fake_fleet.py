"""This file is about fleets of pretend workers in one process, and requests to them, for tests."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from epidote_core.generation import Choice, GenerateRequest, MediaKind, MediaPixels, MediaSpan
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.settings import EngineConfig
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import InProcessFleet, running
from epidote_workers.self_check import tiny_picture


@asynccontextmanager
async def fleet_of(
    directory: Path,
    delays: dict[str, Any] | None = None,
    config: dict[str, Any] | None = None,
    **roles: Role,
) -> AsyncIterator[InProcessFleet]:
    """Pretend workers by id; at the end nothing may be leaked.

    `delays` are the pretend engine's, `config` changes the engine's settings.
    """
    sizes = {"num_kv_blocks": 96, "num_media_rows": 96, "chunk_tokens": 24, **(config or {})}
    fleet = InProcessFleet(
        directory,
        EngineConfig(model="pretend", **sizes),
        make_engine=lambda config, allocate: FakeEngine(config, allocate, **(delays or {})),
        tiny_pixels=lambda key: tiny_picture(key, 4, 1),
    )
    async with running(fleet, roles):
        yield fleet
        leaks = await fleet.leaks()
        assert leaks == {}, leaks


def pretend(fleet: InProcessFleet, worker_id: str) -> FakeEngine:
    """The engine of one worker, to hold it up or break it."""
    engine = fleet.engines[worker_id]
    assert isinstance(engine, FakeEngine)
    return engine


def picture(key: str, num_tokens: int) -> MediaPixels:
    """A picture that becomes `num_tokens` embeddings."""
    return MediaPixels(
        key=key,
        kind=MediaKind.IMAGE,
        num_frames=1,
        height=4,
        width=4,
        grid_thw=(1, 1, num_tokens),
        num_tokens=num_tokens,
        data=key.encode().ljust(48, b"."),
    )


def ask_for(
    name: str,
    *,
    prompt: int = 60,
    tokens: int = 12,
    pictures: Sequence[MediaPixels] = (),
    choices: int = 1,
    temperature: float = 1.0,
) -> GenerateRequest:
    """`prompt` tokens, the pictures with three tokens behind each, and `tokens` to come."""
    ids = list(range(prompt))
    spans = []
    for pixels in pictures:
        spans.append(
            MediaSpan(
                key=pixels.key,
                kind=pixels.kind,
                offset=len(ids),
                num_tokens=pixels.num_tokens,
                grid_thw=pixels.grid_thw,
            )
        )
        ids += [7] * pixels.num_tokens + [1, 2, 3]
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=tuple(ids),
        sampling=SamplingParams(max_tokens=tokens, temperature=temperature, seed=len(name)),
        media=tuple(spans),
        choices=tuple(Choice(index=index) for index in range(choices)),
        cache_salt=name,
    )
