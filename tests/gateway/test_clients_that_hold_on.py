"""Clients that hold what others need: unread answers, half-sent headers, bodies, memory."""

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

from epidote_gateway.api_errors import ApiError
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.http_protocol import GatewayProtocol
from epidote_gateway.memory_budget import MemoryBudget
from epidote_gateway.pixel_turns import PixelTurns
from epidote_gateway.settings import GatewaySettings, InvalidSettings

CHAT = "/v1/chat/completions"


async def until(condition: Any, seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port), limit=1)


def post(path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps(body).encode()
    return (
        b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
        b"content-length: %d\r\n\r\n" % (path.encode(), len(data)) + data
    )


async def test_who_does_not_read_loses_its_slot(
    backend: FakeBackend, serve: Any, chat: Any
) -> None:
    settings = GatewaySettings(max_concurrency=1, max_queue=0, write_timeout_s=0.2)
    app = create_app(backend, FakeRenderer(), settings, rng=Random(1))
    reader, writer = await connect(await serve(app))
    body = chat(max_tokens=4000, stream=True, logprobs=True, top_logprobs=20)
    writer.write(post(CHAT, body))  # some 5 MB of events, of which nobody reads more than 64 KiB
    await until(lambda: backend.num_open == 1)
    await until(lambda: backend.num_open == 0)
    assert backend.closed == [backend.requests[0][0].request_id]
    disconnects = "epidote_disconnects_total"
    await until(lambda: app.state.registry.get_sample_value(disconnects) == 1)
    assert app.state.registry.get_sample_value("epidote_requests_in_flight") == 0
    with contextlib.suppress(ConnectionResetError):  # cut, not left open with its buffers
        while await asyncio.wait_for(reader.read(1 << 16), 60):
            pass
    writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /health HTTP/1.1\r\nhost: x\r\n"])
@pytest.mark.parametrize("is_first", [True, False])
async def test_half_sent_headers_are_given_up(
    backend: FakeBackend, serve: Any, monkeypatch: Any, sent: bytes, is_first: bool
) -> None:
    url = await serve(create_app(backend, FakeRenderer()))
    if is_first:
        monkeypatch.setattr(GatewayProtocol, "header_timeout_s", 0.2)
    reader, writer = await connect(url)
    if not is_first:
        writer.write(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n")
        await healthy(reader)
        monkeypatch.setattr(GatewayProtocol, "header_timeout_s", 0.2)
        sent = sent or b"G"
    writer.write(sent)
    with contextlib.suppress(ConnectionResetError):
        assert await asyncio.wait_for(reader.read(1 << 16), 60) == b""
    writer.close()


async def healthy(reader: asyncio.StreamReader) -> bytes:
    """A whole answer whose body is one JSON object."""
    answer = b""
    async with asyncio.timeout(60):
        while not answer.endswith(b"}"):
            piece = await reader.read(1 << 16)
            if not piece:
                raise ConnectionResetError
            answer += piece
    return answer


async def test_connections_beyond_the_limit_are_told_so_and_others_go_on(
    backend: FakeBackend, serve: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(GatewayProtocol, "max_connections", 2)
    url = await serve(create_app(backend, FakeRenderer()))
    first, second = await connect(url), await connect(url)
    get = b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n"
    for reader, writer in (first, second):  # both are there before the third comes
        writer.write(get)
        assert (await healthy(reader)).startswith(b"HTTP/1.1 200")
    reader, writer = await connect(url)
    answer = await asyncio.wait_for(reader.read(), 60)  # until it is closed
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503")
    assert b"content-length: %d" % len(body) in head
    assert json.loads(body)["error"]["code"] == "too_many_connections"
    writer.close()
    first[1].write(get)
    assert (await healthy(first[0])).startswith(b"HTTP/1.1 200")
    second[1].close()
    await second[1].wait_closed()
    async with asyncio.timeout(60):  # the server sees it a moment later
        while not answer.startswith(b"HTTP/1.1 200"):
            await asyncio.sleep(0.02)
            reader, writer = await connect(url)
            writer.write(get)
            with contextlib.suppress(ConnectionResetError):
                answer = await healthy(reader)
            writer.close()
    first[1].close()


async def test_a_long_answer_outlives_the_limit_on_headers(
    backend: FakeBackend, serve: Any, monkeypatch: Any, chat: Any
) -> None:
    monkeypatch.setattr(GatewayProtocol, "header_timeout_s", 1.0)  # a busy machine sends them late
    backend.delay_s = 0.07
    reader, writer = await connect(await serve(create_app(backend, FakeRenderer())))
    writer.write(post(CHAT, chat(max_tokens=20, stream=True)))
    answer = b""
    while b"[DONE]" not in answer:
        piece = await asyncio.wait_for(reader.read(1 << 16), 60)
        assert piece, "cut"
        answer += piece
    writer.close()


@pytest.mark.parametrize("path", ["/admin/shed", CHAT])
async def test_a_body_that_never_ends_is_given_up(
    make_client: Any, monkeypatch: Any, path: str
) -> None:
    from epidote_gateway import http_exchange

    defaults = dict(http_exchange.Exchange.read_json_body.__kwdefaults__)
    monkeypatch.setattr(
        http_exchange.Exchange.read_json_body, "__kwdefaults__", {**defaults, "timeout_s": 0.05}
    )

    async def trickle() -> Any:
        while True:
            yield b" "
            await asyncio.sleep(0.01)

    client = make_client(body_timeout_s=0.05)
    response = await client.request(
        "PUT" if "shed" in path else "POST",
        path,
        content=trickle(),
        headers={"content-type": "application/json"},
    )
    assert response.status_code == 408


def test_a_budget_is_of_all_and_names_who_is_too_large() -> None:
    seen: list[int] = []
    budget = MemoryBudget(100, retry_after_s=2.0, on_change=seen.append)
    with budget.hold() as first, budget.hold() as second:
        first.grow(60)
        with pytest.raises(ApiError) as full:
            second.grow(41)
        assert (full.value.status, full.value.headers["retry-after"]) == (429, "2")
        with pytest.raises(ApiError) as never:
            first.grow(41)
        assert never.value.status == 413
        first.keep(10)
        second.grow(90)
        assert seen[-1] == 100
    assert seen[-1] == 0


async def test_bodies_being_read_are_bounded_together(make_client: Any, chat: Any) -> None:
    client = make_client(max_body_bytes=10_000, max_memory_bytes=10_000)
    enough = asyncio.Event()

    async def slow() -> Any:
        yield b" " * 8000
        await enough.wait()
        yield json.dumps(chat()).encode()

    headers = {"content-type": "application/json"}
    held = asyncio.create_task(client.post(CHAT, content=slow(), headers=headers))
    async with asyncio.timeout(60):
        while "epidote_request_bytes 8000.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.01)
    refused = await client.post(CHAT, json=chat("x" * 3000))
    assert refused.status_code == 429
    assert refused.headers["retry-after"]
    assert (await client.post("/tokenize", json={"prompt": "x" * 3000})).status_code == 429
    assert (await client.post(CHAT, json=chat())).status_code == 200
    enough.set()
    assert (await held).status_code == 200
    assert "epidote_request_bytes 0.0" in (await client.get("/metrics")).text


async def test_pictures_of_answers_under_way_count(
    make_client: Any, chat: Any, picture: Any, data_url: Any, backend: FakeBackend
) -> None:
    client = make_client()
    backend.delay_s = 0.05
    body = chat("x", data_url(picture((320, 320))), max_tokens=3000)
    held = asyncio.create_task(client.post(CHAT, json=body))
    await until(lambda: backend.num_open == 1)
    metrics = (await client.get("/metrics")).text
    line = next(x for x in metrics.splitlines() if x.startswith("epidote_request_bytes "))
    assert 3 * 320 * 320 <= float(line.split()[1]) < 3 * 320 * 320 + 8192  # no base64 any more
    held.cancel()
    with pytest.raises(asyncio.CancelledError):
        await held


async def test_a_full_gateway_refuses_before_it_reads(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    backend.delay_s = 0.05
    client = make_client(max_concurrency=1, max_queue=0)
    first = asyncio.create_task(client.post(CHAT, json=chat(max_tokens=100)))
    await until(lambda: backend.num_open == 1)
    read: list[bytes] = []

    async def body() -> Any:
        for _ in range(100):
            read.append(b" ")
            yield b" "

    response = await client.post(CHAT, content=body(), headers={"content-type": "application/json"})
    assert response.status_code == 429
    assert len(read) < 100
    first.cancel()


def test_a_budget_smaller_than_one_body_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="MAX_MEMORY_BYTES"):
        GatewaySettings(max_memory_bytes=5)


def test_pixels_being_decoded_are_bounded_and_nobody_starves() -> None:
    turns, held, most, order = PixelTurns(100), 0, 0, []
    lock, first_in, go = threading.Lock(), threading.Event(), threading.Event()

    def decode(name: str, weight: int) -> None:
        nonlocal held, most
        with turns.of(weight):
            with lock:
                held, order[len(order) :] = held + min(weight, 100), [name]
                most = max(most, held)
            first_in.set()
            go.wait(60)
            with lock:
                held -= min(weight, 100)

    threads = []
    for name, weight in (("a", 60), ("huge", 500), ("b", 10), ("c", 60)):
        thread = threading.Thread(target=decode, args=(name, weight))
        thread.start()
        threads.append(thread)
        first_in.wait(60)
        while len(turns._waiting) < len(threads) - 1:
            pass
    assert order == ["a"]  # the small one does not overtake the huge one
    go.set()
    for thread in threads:
        thread.join(60)
    assert order[:2] == ["a", "huge"]
    assert most <= 100


async def test_others_wait_for_one_picture_of_each_request(
    make_client: Any, chat: Any, picture: Any, data_url: Any, monkeypatch: Any
) -> None:
    order: list[int] = []
    go = threading.Event()
    queued: list[int] = []

    class Threads(ThreadPoolExecutor):
        def submit(self, *args: Any, **kwargs: Any) -> Any:
            queued.append(1)
            return super().submit(*args, **kwargs)

    monkeypatch.setattr("epidote_gateway.media_loading.ThreadPoolExecutor", Threads)

    class Slow(FakeRenderer):
        def prepare_image(self, image: Any, content_key: str) -> Any:
            go.wait(60)
            order.append(image.width)
            return super().prepare_image(image, content_key)

    client = make_client(Slow(), media_threads=1)
    many = [data_url(picture((16, 16), seed=seed)) for seed in range(12)]
    first = asyncio.create_task(client.post(CHAT, json=chat("x", *many)))
    await until(lambda: queued)
    num_queued = len(queued)
    second = asyncio.create_task(client.post(CHAT, json=chat("x", data_url(picture((32, 32))))))
    await until(lambda: len(queued) > num_queued)
    go.set()
    assert (await first).status_code == (await second).status_code == 200
    assert order.index(32) == 1


DECODE = """
import threading
from io import BytesIO
from PIL import Image
from epidote_gateway.image_decoding import ImageLimits, content_key, decode_image

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

file = BytesIO()
Image.new("RGB", (8000, 6000)).save(file, "JPEG")
data, limits = file.getvalue(), ImageLimits(max_pixels=10**8, max_side_px=10**5)
del file
before = resident()
for _ in range(2):
    work = lambda: content_key(decode_image(data, field="x", limits=limits).copy())
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
print(resident() - before)
"""


def test_the_memory_of_decoded_pictures_is_given_back() -> None:
    done = subprocess.run(  # a process of its own: nobody else's memory
        [sys.executable, "-c", DECODE], check=True, capture_output=True, text=True, timeout=300
    )
    assert int(done.stdout) < 100 << 20  # of 192 MB that each picture took twice
