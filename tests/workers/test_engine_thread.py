"""This file is about an engine in its thread: order, batches of events, sleep, death."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest

from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.events import Event, TokensOut
from epidote_engine.settings import EngineConfig
from epidote_workers.engine_protocol import EngineLike
from epidote_workers.engine_thread import EngineFailed, EngineThread
from epidote_workers.fakes import FakeEngine
from epidote_workers.in_process_fleet import until
from epidote_workers.transfer.shared_pool import SharedMemoryAllocator


class Heard:
    def __init__(self) -> None:
        self.batches: list[list[Event]] = []
        self.failures: list[str] = []


@asynccontextmanager
async def thread_of() -> AsyncIterator[tuple[EngineThread, FakeEngine, Heard]]:
    heard = Heard()
    config = EngineConfig(model="pretend", num_kv_blocks=64)
    allocator = SharedMemoryAllocator()
    thread = EngineThread(
        lambda: FakeEngine(config, allocator.allocate),
        worker_id="w",
        on_events=heard.batches.append,
        on_layers=lambda spans: None,
        on_failure=heard.failures.append,
    )
    engine = await thread.start()
    assert isinstance(engine, FakeEngine)
    try:
        yield thread, engine, heard
    finally:
        await thread.stop()
        allocator.close()


def request_of(name: str, tokens: int = 5) -> GenerateRequest:
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=(1, 2, 3),
        sampling=SamplingParams(max_tokens=tokens),
    )


async def test_a_step_wakes_the_loop_once_with_all_its_events() -> None:
    async with thread_of() as (thread, engine, heard):
        engine.go.clear()
        for name in "abc":
            thread.post(partial(FakeEngine.add, request=request_of(name)))
        engine.go.set()
        await until(lambda: sum(map(len, heard.batches)) == 15)
        assert max(map(len, heard.batches)) == 3
        assert all(isinstance(event, TokensOut) for batch in heard.batches for event in batch)


async def test_commands_run_in_order_and_errors_come_back() -> None:
    async with thread_of() as (thread, _, _):
        order: list[int] = []
        for number in range(50):
            thread.post(partial(lambda number, engine: order.append(number), number))
        assert await thread.call(lambda engine: len(order)) == 50
        assert order == list(range(50))
        with pytest.raises(ZeroDivisionError):
            await thread.call(lambda engine: 1 // 0)
        errors: list[Exception] = []
        thread.post_or(lambda engine: 1 // 0, errors.append)
        await thread.call(lambda engine: None)
        assert [type(error) for error in errors] == [ZeroDivisionError]


async def test_an_idle_engine_sleeps() -> None:
    async with thread_of() as (thread, engine, _):
        looks = 0
        look = engine.has_work

        def counted() -> bool:
            nonlocal looks
            looks += 1
            return look()

        engine.has_work = counted  # type: ignore[method-assign]
        await asyncio.sleep(0.1)
        assert looks <= 2
        await until(lambda: thread.busy_s == 0.0)  # its one look may be under way


async def test_until_is_tried_after_every_step_and_ends_in_time() -> None:
    async with thread_of() as (thread, engine, _):
        tries = 0

        def attempt(engine: EngineLike) -> str | None:
            nonlocal tries
            tries += 1
            return "at last" if tries == 4 else None

        engine.go.clear()  # no step is over before somebody waits for it
        thread.post(lambda engine: engine.add(request_of("a", tokens=20)))
        waiting = asyncio.create_task(thread.until(attempt, 60.0))
        await asyncio.sleep(0)
        engine.go.set()
        assert await waiting == "at last"
        with pytest.raises(TimeoutError):
            await thread.until(lambda engine: None, 0.05)


async def test_a_dead_engine_fails_everybody_who_waits() -> None:
    async with thread_of() as (thread, engine, heard):
        waiting: asyncio.Task[None] = asyncio.create_task(thread.until(lambda engine: None, 60.0))
        await asyncio.sleep(0.02)

        def broken() -> list[Event]:
            raise ValueError("on purpose")

        engine.step = broken  # type: ignore[method-assign]
        thread.post(lambda engine: engine.add(request_of("a")))
        with pytest.raises(EngineFailed, match="on purpose"):
            await waiting
        assert len(heard.failures) == 1
        with pytest.raises(EngineFailed) as raised:
            await thread.call(lambda engine: None)
        assert raised.value.worker_id == "w"


async def test_an_engine_that_cannot_be_made_says_why() -> None:
    def make() -> EngineLike:
        raise FileNotFoundError("no such model")

    thread = EngineThread(
        make,
        worker_id="w",
        on_events=lambda events: None,
        on_layers=lambda spans: None,
        on_failure=lambda reason: None,
    )
    with pytest.raises(FileNotFoundError, match="no such model"):
        await thread.start()
    await thread.stop()
    assert "epidote-engine" not in [t.name for t in threading.enumerate() if t is thread._thread]
