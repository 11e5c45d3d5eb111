"""A gateway that stops tells those whom it does not answer any more, in words of the API."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn

from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.http_protocol import GatewayProtocol
from epidote_gateway.settings import GatewaySettings


@asynccontextmanager
async def stoppable(
    backend: FakeBackend, *, grace_s: int = 1
) -> AsyncIterator[tuple[uvicorn.Server, str]]:
    """A server that is told to stop by the test, and then waits `grace_s` for its requests."""
    app = create_app(backend, FakeRenderer(), GatewaySettings(), rng=Random(1))
    config = uvicorn.Config(
        app, port=0, http=GatewayProtocol, ws="none", log_config=None, access_log=False,
        timeout_graceful_shutdown=grace_s,
    )  # fmt: skip
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield server, f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving


async def answer_of(server: uvicorn.Server, url: str, backend: FakeBackend, body: Any) -> Any:
    async with httpx.AsyncClient(timeout=60, trust_env=False) as http:
        asked = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))
        async with asyncio.timeout(60):
            while not backend.num_open:
                await asyncio.sleep(0.005)
            await asyncio.sleep(0.1)  # some tokens of a stream
            server.should_exit = True
            return await asked


async def test_an_answer_that_has_not_begun_is_a_503(backend: FakeBackend, chat: Any) -> None:
    backend.delay_s = 0.02
    async with stoppable(backend) as (server, url):
        response = await answer_of(server, url, backend, chat(max_tokens=4000))
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.json()["error"]["code"] == "stopping"
    assert backend.num_open == 0


async def test_a_stream_that_has_begun_ends_with_an_error(backend: FakeBackend, chat: Any) -> None:
    backend.delay_s = 0.02
    async with stoppable(backend) as (server, url):
        response = await answer_of(server, url, backend, chat(max_tokens=4000, stream=True))
    assert response.status_code == 200
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    assert len(events) > 3
    assert json.loads(events[-2])["error"]["code"] == "stopping"
    assert events[-1] == "[DONE]"
    assert all("choices" in json.loads(event) for event in events[:-2])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_is_soon_done_is_answered(
    backend: FakeBackend, chat: Any, stream: bool
) -> None:
    backend.delay_s = 0.02
    async with stoppable(backend, grace_s=60) as (server, url):
        response = await answer_of(server, url, backend, chat(max_tokens=10, stream=stream))
    assert response.status_code == 200
    assert "error" not in response.text
