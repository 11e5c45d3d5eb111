"""This file is about several prompts of one request answered at the same time."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

Item = TypeVar("Item")


async def merged(
    streams: Sequence[AsyncGenerator[Item, None]],
) -> AsyncGenerator[tuple[int, Item], None]:
    """(number of the stream, item) in the order of arrival; the first error of any ends all.

    At most one item of each stream waits: a slow reader slows the streams down.
    """
    if len(streams) == 1:
        async with aclosing(streams[0]) as only:
            async for item in only:
                yield 0, item
        return
    next_items = {
        asyncio.ensure_future(anext(stream)): number for number, stream in enumerate(streams)
    }
    try:
        while next_items:
            done, _ = await asyncio.wait(next_items, return_when=asyncio.FIRST_COMPLETED)
            for future in sorted(done, key=next_items.__getitem__):
                number = next_items.pop(future)
                try:
                    item = future.result()
                except StopAsyncIteration:
                    continue
                yield number, item
                next_items[asyncio.ensure_future(anext(streams[number]))] = number
    finally:
        for future in next_items:
            future.cancel()
        await asyncio.gather(*next_items, return_exceptions=True)
        for stream in streams:
            await stream.aclose()
