"""Fixtures for the gateway's tests: an app over a pretend fleet, in-process or on a real port."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI
from PIL import Image

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.http_protocol import GatewayProtocol
from epidote_gateway.settings import GatewaySettings

FLEET = {Role.ENCODE: 2, Role.PREFILL: 2, Role.DECODE: 3}


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend.of(FLEET)


@pytest.fixture
async def make_client(backend: FakeBackend) -> AsyncIterator[Callable[..., httpx.AsyncClient]]:
    """`make_client(**settings)`: an httpx client of the app, no sockets."""
    async with AsyncExitStack() as stack:

        def make(renderer: FakeRenderer | None = None, **settings: Any) -> httpx.AsyncClient:
            app = create_app(
                backend, renderer or FakeRenderer(), GatewaySettings(**settings), rng=Random(1)
            )
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
            client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
            stack.push_async_callback(client.aclose)
            return client

        yield make


@pytest.fixture
def client(make_client: Callable[..., httpx.AsyncClient]) -> httpx.AsyncClient:
    return make_client()


@asynccontextmanager
async def on_a_port(app: Any) -> AsyncIterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(
            app, port=0, http=GatewayProtocol, ws="none", log_level="error", access_log=False
        )
    )
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        server.force_exit = True
        await task


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Any], Any]]:
    """`await serve(app)`: the address of any ASGI app on a loopback port, until the test ends."""
    async with AsyncExitStack() as stack:

        async def start(app: Any) -> str:
            return await stack.enter_async_context(on_a_port(app))

        yield start


@pytest.fixture
async def make_openai(
    backend: FakeBackend, serve: Callable[[Any], Any]
) -> AsyncIterator[Callable[..., Any]]:
    """`await make_openai(**settings)`: an OpenAI client of the app on a real port."""
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> AsyncOpenAI:
            app = create_app(backend, FakeRenderer(), GatewaySettings(**settings), rng=Random(1))
            url = await serve(app)
            made = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=120)
            return await stack.enter_async_context(made)

        yield make


@pytest.fixture
async def openai(make_openai: Callable[..., Any]) -> AsyncOpenAI:
    made: AsyncOpenAI = await make_openai()
    return made


@pytest.fixture
def picture() -> Callable[..., bytes]:
    """`picture(size, format, seed)`: an image file."""

    def draw(size: tuple[int, int] = (48, 32), format: str = "PNG", seed: int = 0) -> bytes:
        image = Image.frombytes("RGB", size, Random(seed).randbytes(size[0] * size[1] * 3))
        file = BytesIO()
        image.save(file, format, **({"lossless": True} if format == "WEBP" else {}))
        return file.getvalue()

    return draw


@pytest.fixture
def data_url() -> Callable[..., str]:
    def make(data: bytes, type: str = "image/png") -> str:
        return f"data:{type};base64,{base64.b64encode(data).decode()}"

    return make


@pytest.fixture
def chat() -> Callable[..., dict[str, Any]]:
    """`chat("text", *urls, **fields)`: a request body."""

    def body(text: str = "hi", *urls: str, **fields: Any) -> dict[str, Any]:
        parts: list[Any] = [{"type": "text", "text": text}]
        parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        content = parts if urls else text
        return {
            "model": "fake-vl",
            "messages": [{"role": "user", "content": content}],
            "max_tokens": 24,
            **fields,
        }

    return body


@pytest.fixture
def assert_openai_error() -> Callable[..., dict[str, Any]]:
    """`assert_openai_error(response, status)`: the error, which has the shape of OpenAI's."""

    def check(response: httpx.Response, status: int) -> dict[str, Any]:
        assert response.status_code == status, response.text
        assert response.headers["content-type"] == "application/json"
        assert response.headers["x-request-id"]
        assert set(response.json()) == {"error"}
        error: dict[str, Any] = response.json()["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert isinstance(error["message"], str)
        assert error["type"]
        assert error["code"]
        return error

    return check
