"""A running gateway with a cache, and the real OpenAI client."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.cache.fakes import WordMeaning
from epidote_gateway.cache.policy_file import PolicyFile
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings

POLICY = """
kind: CachePolicy
spec:
  requests: {truncated: true}  # the pretend model never stops by itself
  classifier: {doubtful: Default}
  categories:
    - {name: default, threshold: 0.7}
    - {name: private, enabled: false, exemplars: [salary]}
"""
FLEET = {Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 1}
HEADER = "x-epidote-cache"


class Gateway:
    """One on a loopback port, with a policy file that tests may change."""

    def __init__(self, folder: Path, policy: str) -> None:
        self.folder = folder
        self.policy = folder / "policy.yaml"
        self.policy.write_text(policy)
        self.backend = FakeBackend.of(FLEET)
        self.url = ""

    def make_cache(self, registry: Any) -> ResponseCache:
        file = PolicyFile(self.policy)
        store = SqliteStore(self.folder / "answers.sqlite3")
        given = Collaborators(
            meaning=WordMeaning(), store=store, policy_file=file, registry=registry
        )
        return ResponseCache(file.policy, given)

    @property
    def num_asked(self) -> int:
        return len(self.backend.requests)


@pytest.fixture
def policy_text() -> str:
    """What `start` writes to the policy file unless told otherwise."""
    return POLICY


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as stack:

        async def begin(*, policy: str = POLICY, **settings: Any) -> Gateway:
            gateway = Gateway(tmp_path, policy)
            app = create_app(
                gateway.backend,
                FakeRenderer(),
                GatewaySettings(**settings),
                rng=Random(1),
                make_cache=gateway.make_cache,
            )
            server = uvicorn.Server(
                uvicorn.Config(app, port=0, ws="none", log_level="error", access_log=False)
            )
            server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
            task = asyncio.create_task(server.serve())
            while not server.started:
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            gateway.url = f"http://127.0.0.1:{port}"

            async def stop() -> None:
                server.should_exit = True
                await task

            stack.push_async_callback(stop)
            return gateway

        yield begin


@pytest.fixture
async def gateway(start: Any) -> Gateway:
    made: Gateway = await start()
    return made


@pytest.fixture
async def openai(gateway: Gateway) -> AsyncIterator[AsyncOpenAI]:
    base = f"{gateway.url}/v1"
    async with AsyncOpenAI(base_url=base, api_key="none", max_retries=0, timeout=120) as made:
        yield made


@pytest.fixture
async def http(gateway: Gateway) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as made:
        yield made


@pytest.fixture
def ask() -> Callable[..., Any]:
    """`await ask(openai, messages, **fields)`: (answer, cache header)."""

    async def ask(openai: AsyncOpenAI, messages: list[Any], **more: Any) -> tuple[str, str]:
        fields = {"model": "fake-vl", "max_tokens": 20, "temperature": 0, **more}
        raw = await openai.chat.completions.with_raw_response.create(messages=messages, **fields)
        answer = raw.parse()
        if not fields.get("stream"):
            return answer.choices[0].message.content, raw.headers[HEADER]
        texts = [c.choices[0].delta.content or "" async for c in answer if c.choices]
        return "".join(texts), raw.headers[HEADER]

    return ask


@pytest.fixture
def about() -> Callable[..., list[Any]]:
    """`about(text, *urls)`: messages."""

    def about(text: str, *urls: str) -> list[Any]:
        parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
        return [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]

    return about
