"""This bench is about the gateway alone: tokens per second through it, and what a request costs.

A stand-in engine (in the gateway's process, tokens for nothing) and a raw client in a process of
its own, on one box. Prints one JSON line.

    python workers/bench/gateway_throughput.py --streams 32 --seconds 10
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import uvicorn
import uvloop

from epidote_core.generation import FinishReason, GenerateRequest, Route, TokenChunk
from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings


class StandInStream:
    """One token an item. `rate` tokens a second; 0: as fast as they are taken.

    At a rate, tokens that became due together come as one item: what a real backend does.
    """

    def __init__(self, request: GenerateRequest, rate: float) -> None:
        self._left = request.sampling.max_tokens
        self._period_s = 1 / rate if rate else 0.0
        self._next_s = time.monotonic() + self._period_s

    def __aiter__(self) -> AsyncIterator[list[TokenChunk]]:
        return self

    async def __anext__(self) -> list[TokenChunk]:
        if not self._left:
            raise StopAsyncIteration
        count = 1
        now_s = time.monotonic()
        if self._period_s:
            await asyncio.sleep(max(0.0, self._next_s - now_s))
            late_s = time.monotonic() - self._next_s
            count = min(self._left, 1 + max(0, int(late_s / self._period_s)))
            self._next_s += count * self._period_s
        else:
            await asyncio.sleep(0)
        self._left -= count
        chunks = [TokenChunk(index=0, token_ids=(5,), text=" word")] * count
        if not self._left:
            chunks[-1] = TokenChunk(
                index=0, token_ids=(5,), text=" word", finish_reason=FinishReason.LENGTH
            )
        return chunks

    async def aclose(self) -> None:
        self._left = 0


class StandIn(FakeBackend):
    rate: float = 0.0

    def generate(self, request: GenerateRequest, route: Route) -> StandInStream:
        return StandInStream(request, self.rate)


def serve(sock: socket.socket, rate: float) -> None:
    """The server's process: the gateway before the stand-in, and a baseline."""
    backend = StandIn.of({Role.PREFILL: 1, Role.DECODE: 2})
    backend.rate = rate
    app = create_app(backend, FakeRenderer(max_model_len=100_000), GatewaySettings())

    async def with_baseline(scope: Any, receive: Any, send: Any) -> None:
        """/baseline answers at once: what the server and the client cost without a gateway."""
        if scope["type"] == "http" and scope["path"] == "/baseline":
            while (await receive()).get("more_body"):
                pass
            headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"{}"})
        else:
            await app(scope, receive, send)

    config = uvicorn.Config(
        with_baseline,
        http="httptools",
        loop="uvloop",
        ws="none",
        log_level="warning",
        access_log=False,
    )
    uvloop.run(uvicorn.Server(config).serve(sockets=[sock]))


def http_request(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def chat(stream: bool, max_tokens: int) -> bytes:
    body: dict[str, Any] = {
        "model": "fake-vl",
        "messages": [{"role": "user", "content": "Count the shapes in the picture, please."}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return http_request("/v1/chat/completions", body)


async def read_answer(reader: asyncio.StreamReader, end: bytes) -> int:
    """Read until `end`; the number of bytes."""
    tail, size = b"", 0
    while True:
        piece = await reader.read(1 << 16)
        if not piece:
            raise ConnectionError("the server closed the connection")
        size += len(piece)
        tail = (tail + piece)[-256:]
        if end in tail:
            return size


async def stream_for(port: int, until_s: float, tokens: int, done: list[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    request = chat(True, tokens)
    while time.monotonic() < until_s:
        writer.write(request)
        await read_answer(reader, b"data: [DONE]\n\n\r\n0\r\n\r\n")
        done.append(tokens)
    writer.close()


async def throughput(port: int, streams: int, seconds: float, tokens: int) -> float:
    """Tokens a second over all streams, whole answers only."""
    done: list[int] = []
    started_s = time.monotonic()
    await asyncio.gather(
        *(stream_for(port, started_s + seconds, tokens, done) for _ in range(streams))
    )
    return sum(done) / (time.monotonic() - started_s)


async def latencies(port: int, request: bytes, end: bytes, count: int) -> list[float]:
    """Seconds of requests one after another."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    found = []
    for _ in range(count):
        started_s = time.perf_counter()
        writer.write(request)
        await read_answer(reader, end)
        found.append(time.perf_counter() - started_s)
    writer.close()
    return found


def quantiles_ms(values: Sequence[float]) -> dict[str, float]:
    cuts = statistics.quantiles(values, n=100)
    return {"p50": round(cuts[49] * 1e3, 3), "p99": round(cuts[98] * 1e3, 3)}


async def measure(port: int, args: argparse.Namespace) -> dict[str, Any]:
    for _ in range(100):
        try:
            await latencies(port, chat(False, 1), b"}", 300)
            break
        except OSError:
            await asyncio.sleep(0.1)
    bare = await latencies(port, http_request("/baseline", {}), b"{}", args.requests)
    whole = await latencies(port, chat(False, 1), b"}", args.requests)
    streamed = await latencies(port, chat(True, 1), b"data: [DONE]\n\n\r\n0\r\n\r\n", args.requests)
    added_s = statistics.median(whole) - statistics.median(bare)
    rate = await throughput(port, args.streams, args.seconds, args.tokens)
    return {
        "tokens_per_s": round(rate),
        "streams": args.streams,
        "tokens_per_request": args.tokens,
        "engine_rate_per_stream": args.rate,
        "baseline_ms": quantiles_ms(bare),
        "request_ms": quantiles_ms(whole),  # with a rate: the engine's waiting included
        "streamed_request_ms": quantiles_ms(streamed),
        "added_p50_ms": None if args.rate else round(1e3 * added_s, 3),
        "cores": len(os.sched_getaffinity(0)),
        "load_1m_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--tokens", type=int, default=256, help="per request")
    parser.add_argument("--rate", type=float, default=0.0, help="tokens/s of a stream; 0: no limit")
    parser.add_argument("--requests", type=int, default=1000, help="for the latencies")
    args = parser.parse_args()
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    process = multiprocessing.get_context("fork").Process(target=serve, args=(sock, args.rate))
    process.start()
    try:
        print(json.dumps(asyncio.run(measure(sock.getsockname()[1], args))))
    finally:
        process.terminate()
        process.join()


if __name__ == "__main__":
    main()
