"""This file is about concurrent callers of one embedder each getting their own vectors."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from epidote_gateway.cache.meaning.embedder import MAX_BATCH, BatchingEmbedder, EmbedderClosed
from epidote_gateway.cache.meaning.projection import Projection
from epidote_gateway.cache.protocols import Vectors


class LengthModel:
    """Stands for a text by its length; waits until the test lets it go on."""

    name = "length"
    dimensions = 2

    def __init__(self, *, held: bool = False) -> None:
        self.go = threading.Event()
        if not held:
            self.go.set()
        self.batches: list[list[str]] = []
        self.threads: set[str] = set()

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        self.threads.add(threading.current_thread().name)
        assert self.go.wait(60)
        if "bad" in texts:
            raise RuntimeError("a bad batch")
        return np.array([[len(text), 1.0] for text in texts], np.float32)

    def is_whole(self, text: str) -> bool:
        return True


def made(model: LengthModel) -> BatchingEmbedder:
    return BatchingEmbedder(model)  # type: ignore[arg-type]


async def test_each_caller_gets_the_rows_of_its_texts() -> None:
    embedder = made(LengthModel())
    asked = [["a" * (1 + number % 7)] * (1 + number % 3) for number in range(50)]
    found = await asyncio.gather(*(embedder.embed(texts) for texts in asked))
    for texts, vectors in zip(asked, found, strict=True):
        assert vectors[:, 0].tolist() == [len(text) for text in texts]
    await embedder.aclose()


async def test_those_who_wait_at_the_same_time_go_together_and_off_the_loop() -> None:
    model = LengthModel(held=True)
    embedder = made(model)
    calls = [asyncio.create_task(embedder.embed([f"t{number}"])) for number in range(40)]
    while not model.batches:
        await asyncio.sleep(0)
    model.go.set()
    await asyncio.gather(*calls)
    assert all(len(batch) <= MAX_BATCH for batch in model.batches)
    assert len(model.batches) <= 1 + 40 // MAX_BATCH + 1
    assert threading.current_thread().name not in model.threads
    await embedder.aclose()


async def test_a_caller_who_left_costs_nobody_anything() -> None:
    model = LengthModel(held=True)
    embedder = made(model)
    first = asyncio.create_task(embedder.embed(["first"]))
    while not model.batches:
        await asyncio.sleep(0)
    gone = asyncio.create_task(embedder.embed(["gone"]))
    stays = asyncio.create_task(embedder.embed(["stays"]))
    await asyncio.sleep(0)
    gone.cancel()
    model.go.set()
    assert (await stays)[0, 0] == 5
    await first
    assert ["stays"] in model.batches
    await embedder.aclose()


async def test_a_failed_batch_fails_its_callers_and_no_others() -> None:
    embedder = made(LengthModel())
    with pytest.raises(RuntimeError, match="a bad batch"):
        await embedder.embed(["bad"])
    assert (await embedder.embed(["good"]))[0, 0] == 4
    await embedder.aclose()


async def test_closing_ends_those_who_wait() -> None:
    model = LengthModel(held=True)
    embedder = made(model)
    under_way = asyncio.create_task(embedder.embed(["one"]))
    while not model.batches:
        await asyncio.sleep(0)
    waiting = asyncio.create_task(embedder.embed(["two"]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(embedder.aclose())
    with pytest.raises(EmbedderClosed):
        await waiting
    model.go.set()
    await closing
    assert (await under_way)[0, 0] == 3
    with pytest.raises(EmbedderClosed):
        await embedder.embed(["three"])


async def test_a_projection_changes_vectors_dimensions_and_name() -> None:
    projection = Projection(
        mean=np.zeros(2, np.float32), matrix=np.array([[0.0], [2.0]], np.float32), model="length"
    )
    embedder = BatchingEmbedder(LengthModel(), projection)  # type: ignore[arg-type]
    assert (await embedder.embed(["abc"])).tolist() == [[1.0]]
    assert embedder.dimensions == 1
    assert embedder.name == f"length-{projection.digest}"
    await embedder.aclose()
