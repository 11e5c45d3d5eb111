"""This file is about driving an OpenAI-compatible server with concurrent, timed streams."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass(kw_only=True)
class StreamResult:
    """One streamed chat completion; times in seconds from the send."""

    ttft_s: float = 0.0
    e2e_s: float = 0.0
    text: str = ""
    num_tokens: int = 0  # as the server's usage counts them
    arrivals_s: list[float] = field(default_factory=list)
    error: str = ""


def quantile(values: Sequence[float], q: float) -> float:
    """The nearest-rank q-quantile; 0.0 of nothing.

    >>> quantile([3.0, 1.0, 2.0], 0.5)
    2.0
    """
    if not values:
        return 0.0
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


async def stream_chat(client: httpx.AsyncClient, body: dict[str, Any]) -> StreamResult:
    """Send one chat completion with `stream: true` and read it to its end."""
    result = StreamResult()
    start_s = time.perf_counter()
    body = {**body, "stream": True, "stream_options": {"include_usage": True}}
    try:
        async with client.stream("POST", "/v1/chat/completions", json=body) as reply:
            if reply.status_code != 200:
                result.error = f"{reply.status_code}: {(await reply.aread())[:300]!r}"
                return result
            async for line in reply.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    result.error = json.dumps(event["error"])
                    continue
                if event.get("usage"):
                    result.num_tokens = event["usage"]["completion_tokens"]
                for choice in event.get("choices", ()):
                    content = choice["delta"].get("content")
                    if content:
                        result.arrivals_s.append(time.perf_counter() - start_s)
                        result.ttft_s = result.ttft_s or result.arrivals_s[-1]
                        result.text += content
    except httpx.HTTPError as error:
        result.error = f"{type(error).__name__}: {error}"
    result.e2e_s = time.perf_counter() - start_s
    return result


async def closed_loop(
    url: str, bodies: Sequence[dict[str, Any]], *, concurrency: int, timeout_s: float = 300.0
) -> tuple[list[StreamResult], float]:
    """Send all bodies, at most `concurrency` at once; results in order, and the seconds taken."""
    limits = httpx.Limits(max_connections=concurrency)
    gate = asyncio.Semaphore(concurrency)
    async with httpx.AsyncClient(base_url=url, timeout=timeout_s, limits=limits) as client:

        async def one(body: dict[str, Any]) -> StreamResult:
            async with gate:
                return await stream_chat(client, body)

        start_s = time.perf_counter()
        results = await asyncio.gather(*(one(body) for body in bodies))
        return list(results), time.perf_counter() - start_s
