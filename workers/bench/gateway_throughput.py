"""This bench is about the gateway alone: tokens per second through it, and what a request costs.

A stand-in engine (tokens for nothing) and a raw client in a process of its own, on one box. The
engine runs in the gateway's process, or with `--rpc` in a third one behind the workers' sockets.
Prints one JSON line.

    python workers/bench/gateway_throughput.py --streams 32 --seconds 10
    python workers/bench/gateway_throughput.py --rpc --rate 500
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import socket
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import uvicorn
import uvloop

from epidote_core.generation import FinishReason, GenerateRequest, Route, TokenChunk
from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.backend import TokenStream
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings
from epidote_workers.messages import GENERATE, GenerateCall
from epidote_workers.rpc.address import UnixAddress
from epidote_workers.rpc.client import ClientStream, Connection, connect
from epidote_workers.rpc.server import Server, Service


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

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        return StandInStream(request, self.rate)


class RpcStream:
    """A stream of a worker, all that waits as one item: what the real client does."""

    def __init__(self, stream: ClientStream[list[TokenChunk]]) -> None:
        self._stream = stream

    def __aiter__(self) -> AsyncIterator[list[TokenChunk]]:
        return self

    async def __anext__(self) -> list[TokenChunk]:
        items = await self._stream.take()
        if not items:
            raise StopAsyncIteration
        return items[0] if len(items) == 1 else [chunk for item in items for chunk in item]

    async def aclose(self) -> None:
        self._stream.close()


class RpcStandIn(FakeBackend):
    connection: Connection

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        call = GenerateCall(request=request, route=route, addresses={})
        return RpcStream(self.connection.stream(GENERATE, call))


def work(path: str, rate: float) -> None:
    """The worker's process: the stand-in behind a socket."""

    async def produce(call: GenerateCall) -> AsyncGenerator[list[TokenChunk], None]:
        async for chunks in StandInStream(call.request, rate):
            yield chunks

    async def run() -> None:
        service = Service()
        service.add_stream(GENERATE, produce)
        await Server(service).listen(UnixAddress(path))
        await asyncio.Event().wait()

    uvloop.run(run())


def serve(sock: socket.socket, rate: float, rpc: str) -> None:
    """The gateway's process, with a baseline beside it."""
    shape = {Role.PREFILL: 1, Role.DECODE: 2}
    backend: FakeBackend
    if rpc:
        backend = RpcStandIn.of(shape)
    else:
        backend = StandIn.of(shape)
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

    async def run() -> None:
        if isinstance(backend, RpcStandIn):
            backend.connection = await connect(f"unix:{rpc}")
        await uvicorn.Server(config).serve(sockets=[sock])

    uvloop.run(run())


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
        "rpc": args.rpc,
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
    parser.add_argument("--rpc", action="store_true", help="the engine in a process of its own")
    args = parser.parse_args()
    context = multiprocessing.get_context("fork")
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    processes = []
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/worker" if args.rpc else ""
        if path:
            processes.append(context.Process(target=work, args=(path, args.rate)))
            processes[0].start()
            while not os.path.exists(path):
                time.sleep(0.02)
        processes.append(context.Process(target=serve, args=(sock, args.rate, path)))
        processes[-1].start()
        try:
            print(json.dumps(asyncio.run(measure(sock.getsockname()[1], args))))
        finally:
            for process in processes:
                process.terminate()
                process.join()


if __name__ == "__main__":
    main()
