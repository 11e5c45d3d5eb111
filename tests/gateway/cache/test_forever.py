"""The cache's chores end when they are told to."""

import asyncio
import contextlib

import pytest

from epidote_gateway.cache.maintenance import forever


async def test_a_cancellation_that_a_round_kept_to_itself_ends_the_chore_all_the_same() -> None:
    begun = asyncio.Event()

    async def round() -> None:
        begun.set()
        with contextlib.suppress(asyncio.CancelledError):  # as `wait_for` may, before Python 3.12
            await asyncio.Event().wait()

    chore = asyncio.create_task(forever(round, pause_s=3600.0))
    await begun.wait()
    chore.cancel()
    async with asyncio.timeout(60):
        with pytest.raises(asyncio.CancelledError):
            await chore


async def test_a_round_that_fails_is_followed_by_another() -> None:
    rounds: list[int] = []
    enough = asyncio.Event()

    async def round() -> None:
        rounds.append(1)
        if len(rounds) == 3:
            enough.set()
        raise RuntimeError("a bug")

    chore = asyncio.create_task(forever(round, pause_s=0.0))
    async with asyncio.timeout(60):
        await enough.wait()
    chore.cancel()
    await asyncio.gather(chore, return_exceptions=True)
    assert len(rounds) >= 3
