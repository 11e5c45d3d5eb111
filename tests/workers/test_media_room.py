"""This file is about letting in as many requests with media as fit, and none that would not."""

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaKind, MediaSpan
from epidote_workers.media_room import MediaRoom


def spans(*media: tuple[str, int]) -> list[MediaSpan]:
    return [
        MediaSpan(key=key, kind=MediaKind.IMAGE, offset=0, num_tokens=n, grid_thw=(1, 1, n))
        for key, n in media
    ]


async def test_shared_media_count_once_and_order_is_kept() -> None:
    room = MediaRoom(10)
    first = await room.enter(spans(("a", 6)))
    again = await room.enter(spans(("a", 6), ("b", 4)))
    large = asyncio.create_task(room.enter(spans(("c", 9))))
    small = asyncio.create_task(room.enter(spans(("a", 6))))
    await asyncio.sleep(0)
    first.leave()
    first.leave()
    await asyncio.sleep(0)
    assert not large.done()
    assert not small.done(), "a small one does not overtake"
    again.leave()
    (await large).leave()
    (await small).leave()
    assert len(room) == 0


async def test_who_gives_up_waiting_lets_the_next_one_in() -> None:
    room = MediaRoom(10)
    inside = await room.enter(spans(("a", 6)))
    large = asyncio.create_task(room.enter(spans(("b", 9))))
    small = asyncio.create_task(room.enter(spans(("c", 4))))
    await asyncio.sleep(0)
    large.cancel()
    await asyncio.gather(large, return_exceptions=True)
    (await small).leave()
    inside.leave()
    assert len(room) == 0


async def test_what_never_fits_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="11 embeddings"):
        await MediaRoom(10).enter(spans(("a", 6), ("b", 5)))


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=3, unique=True), max_size=12),
    st.integers(0, 2**32),
)
def test_everybody_gets_in_and_nothing_is_kept(requests: list[list[str]], seed: int) -> None:
    rng = random.Random(seed)
    sizes = {key: 1 + number for number, key in enumerate("abcdef")}

    async def main() -> None:
        room = MediaRoom(15)

        async def one(keys: list[str]) -> None:
            seat = await room.enter(spans(*((key, sizes[key]) for key in keys)))
            try:
                assert sum(sizes[key] for key in room._inside) <= 15
                for _ in range(rng.randrange(3)):
                    await asyncio.sleep(0)
            finally:
                seat.leave()

        tasks = [asyncio.create_task(one(keys)) for keys in requests]
        for task in tasks:
            if rng.random() < 0.2:
                await asyncio.sleep(0)
                task.cancel()
        async with asyncio.timeout(60.0):
            await asyncio.gather(*tasks, return_exceptions=True)
        assert len(room) == 0

    asyncio.run(main())
