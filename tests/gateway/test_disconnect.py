"""A client that leaves: every stage is told, every slot comes back."""

import asyncio
import json
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from epidote_core.roles import Role
from epidote_gateway.fakes import FakeBackend

HI = [{"role": "user", "content": "hi"}]


async def until(condition: Any, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def send_raw(url: str, body: dict[str, Any]) -> tuple[Any, Any]:
    """A browser's view: a connection that can be cut at any moment."""
    host, port = url.removeprefix("http://").removesuffix("/v1/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    data = json.dumps(body).encode()
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % len(data) + data
    )
    return reader, writer


async def count(openai: AsyncOpenAI, name: str) -> float:
    """One metric without labels, as a scrape reads it."""
    url = str(openai.base_url).removesuffix("v1/")
    async with httpx.AsyncClient(timeout=60) as client:
        text = (await client.get(f"{url}metrics")).text
    return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])


async def until_counted(openai: AsyncOpenAI, name: str, value: float) -> None:
    async with asyncio.timeout(60):
        while await count(openai, name) != value:
            await asyncio.sleep(0.005)


async def test_leaving_a_stream_cancels_the_request(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    backend.delay_s = 0.005
    stream = await openai.chat.completions.create(
        model="fake-vl", messages=HI, max_tokens=4000, stream=True
    )
    async for _ in stream:
        break
    assert backend.num_open == 1
    await stream.close()
    await until(lambda: backend.num_open == 0)
    assert backend.closed == [backend.requests[0][0].request_id]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("n", [1, 3])
async def test_a_cut_connection_cancels_the_request(
    openai: AsyncOpenAI, backend: FakeBackend, chat: Any, stream: bool, n: int
) -> None:
    backend.delay_s = 0.005
    body = chat(stream=stream, n=n, max_tokens=2000)
    _, writer = await send_raw(str(openai.base_url), body)
    await until(lambda: backend.num_open == 1)
    await asyncio.sleep(0.02)
    writer.close()
    await until(lambda: backend.num_open == 0)
    assert len(backend.closed) == 1


async def test_leaving_while_nobody_serves_gives_up(
    make_openai: Any, backend: FakeBackend, chat: Any
) -> None:
    openai = await make_openai(no_worker_timeout_s=3600)
    for number in range(3):
        backend.kill(f"decode-{number}")
    _, writer = await send_raw(str(openai.base_url), chat())
    await until_counted(openai, "epidote_requests_in_flight", 1)
    writer.close()
    await until_counted(openai, "epidote_requests_in_flight", 0)
    backend.put("decode-0", Role.DECODE)
    await asyncio.sleep(0.1)
    assert backend.requests == []


async def test_leaving_while_pictures_are_handed_over_gives_them_up(
    openai: AsyncOpenAI, backend: FakeBackend, chat: Any, picture: Any, data_url: Any
) -> None:
    backend.delay_s = 30
    backend.encode_delay_s = 30
    urls = [data_url(picture(seed=seed)) for seed in range(3)]
    _, writer = await send_raw(str(openai.base_url), chat("see", *urls))
    await until(lambda: backend.num_open == 1)
    writer.close()
    await until(lambda: backend.num_open == 0)
    assert backend.encoded == []


async def test_slots_come_back(make_openai: Any, backend: FakeBackend, chat: Any) -> None:
    openai = await make_openai(max_concurrency=2, max_queue=1)
    backend.delay_s = 0.005
    for _ in range(3):
        writers = [
            (await send_raw(str(openai.base_url), chat(stream=True, max_tokens=2000)))[1]
            for _ in range(2)
        ]
        await until(lambda: backend.num_open == 2)
        for writer in writers:
            writer.close()
        await until(lambda: backend.num_open == 0)
        await until_counted(openai, "epidote_requests_in_flight", 0)  # a moment later
    backend.delay_s = 0
    answer = await openai.chat.completions.create(**chat())
    assert answer.choices[0].message.content


async def test_a_disconnect_is_counted_and_an_answer_is_not(
    openai: AsyncOpenAI, backend: FakeBackend, chat: Any
) -> None:
    for stream in (False, True):
        response = await openai.chat.completions.create(**chat(stream=stream))
        if stream:
            async for _ in response:
                pass
    assert await count(openai, "epidote_disconnects_total") == 0
    backend.delay_s = 0.05
    _, writer = await send_raw(str(openai.base_url), chat(max_tokens=4000))
    await until(lambda: backend.num_open == 1)
    writer.close()
    await until(lambda: backend.num_open == 0)
    await until_counted(openai, "epidote_disconnects_total", 1)


async def test_a_body_that_never_comes_holds_nothing(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    host, port = str(openai.base_url).removeprefix("http://").removesuffix("/v1/").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: 1000\r\n\r\n{"
    )
    await asyncio.sleep(0.05)
    writer.close()
    await asyncio.sleep(0.05)
    assert backend.requests == []


async def test_several_prompts_are_cancelled_together(
    openai: AsyncOpenAI, backend: FakeBackend
) -> None:
    backend.delay_s = 0.005
    stream = await openai.completions.create(
        model="fake-vl", prompt=["a", "b", "c"], max_tokens=2000, stream=True
    )
    async for _ in stream:
        break
    await stream.close()
    await until(lambda: len(backend.closed) == 3)
    assert backend.num_open == 0
