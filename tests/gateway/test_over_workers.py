"""The gateway before real workers, sockets and shared memory; only the engines pretend."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest

from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.roles import Role, WorkerState
from epidote_core.sampling import SamplingParams
from epidote_engine.settings import EngineConfig
from epidote_gateway.app import create_app
from epidote_gateway.backend import Backend
from epidote_gateway.fakes import FakeRenderer
from epidote_gateway.image_decoding import ImageLimits, content_key, decode_image
from epidote_gateway.settings import GatewaySettings
from epidote_workers.client import FleetClient
from epidote_workers.engine_protocol import Allocate
from epidote_workers.fakes import FakeEngine, answer
from epidote_workers.self_check import tiny_picture
from epidote_workers.worker import Worker
from epidote_workers.worker_settings import WorkerSettings

CHAT = "/v1/chat/completions"
ROLES = {"e0": Role.ENCODE, "p0": Role.PREFILL, "d0": Role.DECODE, "d1": Role.DECODE}


class Fleet:
    """Workers in this process, each with its engine thread and sockets, and a client."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.client = FleetClient()
        self.workers: dict[str, Worker] = {}
        self.engines: dict[str, FakeEngine] = {}

    async def add(self, worker_id: str, role: Role) -> None:
        def make(config: EngineConfig, allocate: Allocate) -> FakeEngine:
            engine = self.engines[worker_id] = FakeEngine(config, allocate, step_s=0.002)
            return engine

        worker = Worker(
            worker_id,
            EngineConfig(model="none", role=role, num_kv_blocks=256, num_media_rows=256),
            WorkerSettings(socket_dir=self.folder / worker_id, status_every_s=0.02),
            make_engine=make,
            tiny_pixels=lambda key: tiny_picture(key, 16, 1),
        )
        self.workers[worker_id] = worker
        await worker.start()
        self.tell()

    def tell(self) -> None:
        self.client.update_members([(id, worker.address) for id, worker in self.workers.items()])

    async def routable(self) -> None:
        async with asyncio.timeout(60):
            while {
                v.worker_id for v in self.client.workers() if v.state is WorkerState.ROUTABLE
            } != (set(self.workers)):
                await asyncio.sleep(0.01)

    async def lose(self, worker_id: str) -> None:
        """As seen from everybody else: a dead process, not a farewell."""
        await self.workers.pop(worker_id).stop()

    async def sound(self) -> None:
        """Wait until nothing is at work, then ask everybody's bookkeeping."""
        async with asyncio.timeout(60):
            while True:
                found = await self.client.conservation()
                if not any(found.values()) and set(found) == set(self.workers):
                    return
                await asyncio.sleep(0.05)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own paths are too long for sockets
        made = Fleet(Path(folder))
        for worker_id, role in ROLES.items():
            await made.add(worker_id, role)
        await made.routable()
        yield made
        await made.client.stop()
        for worker in made.workers.values():
            await worker.stop()


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[httpx.AsyncClient]:
    backend: Backend = fleet.client
    settings = GatewaySettings(no_worker_timeout_s=60)
    app = create_app(backend, FakeRenderer(), settings, rng=Random(1))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=app), base_url="http://gateway", timeout=60
    ) as made:
        yield made


def body_of(text: str, urls: Sequence[str] = (), **fields: Any) -> dict[str, Any]:
    parts: list[Any] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    parts.append({"type": "text", "text": text})
    message = {"role": "user", "content": parts}
    return {"messages": [message], "temperature": 0, "return_token_ids": True, **fields}


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(e[6:]) for e in text.split("\n\n") if e and "[DONE]" not in e]


def tokens_of(text: str) -> list[int]:
    found = events(text)
    assert not [event for event in found if "error" in event]
    return [t for e in found for c in e["choices"] for t in c.get("token_ids", [])]


def truth(body: dict[str, Any], pictures: Sequence[MediaPixels] = ()) -> list[int]:
    parts = [
        p if p["type"] == "text" else {"type": "image"} for p in body["messages"][0]["content"]
    ]
    prompt = FakeRenderer().render_chat([{"role": "user", "content": parts}], media=pictures)
    request = GenerateRequest(
        request_id="x",
        prompt_token_ids=prompt.token_ids,
        media=prompt.media,
        sampling=SamplingParams(max_tokens=body["max_tokens"], temperature=0),
    )
    return answer(request, pictures)


def prepared(file: bytes) -> MediaPixels:
    limits = ImageLimits(max_pixels=10**6, max_side_px=1000)
    image = decode_image(file, field="x", limits=limits)
    return FakeRenderer().prepare_image(image, content_key(image))


async def test_a_question_about_pictures_passes_through_three_kinds_of_workers(
    fleet: Fleet, client: httpx.AsyncClient, picture: Any, data_url: Any
) -> None:
    files = [picture((48 + 16 * n, 32), seed=n) for n in range(3)]
    body = body_of("compare", [data_url(f) for f in files], max_tokens=20, stream=True)
    response = await client.post(CHAT, json=body, headers={"x-epidote-timings": "1"})
    assert tokens_of(response.text) == truth(body, [prepared(f) for f in files])
    told = events(response.text)[-1]["epidote"]
    assert told["route"]["encode"] == ["e0"]
    assert {stage["stage"] for stage in told["stages"]} >= {"encode", "prefill", "decode"}
    await fleet.sound()


async def test_many_at_once_each_get_their_own_answer(
    fleet: Fleet, client: httpx.AsyncClient, picture: Any, data_url: Any
) -> None:
    files = [picture(seed=n) for n in range(4)]

    async def ask(number: int) -> None:
        chosen = files[: number % 3]
        body = body_of(
            f"question {number}", [data_url(f) for f in chosen], max_tokens=15, stream=True
        )
        response = await client.post(CHAT, json=body)
        assert tokens_of(response.text) == truth(body, [prepared(f) for f in chosen])

    await asyncio.gather(*(ask(number) for number in range(24)))
    await fleet.sound()


async def test_a_lost_decoder_costs_time_not_tokens(
    fleet: Fleet, client: httpx.AsyncClient, picture: Any, data_url: Any
) -> None:
    file = picture()
    bodies = [
        body_of(f"tell {n}", [data_url(file)] * (n % 2), max_tokens=150, stream=True)
        for n in range(6)
    ]
    engine = fleet.engines["d0"]
    engine.hold_at_tokens = 60
    asking = [asyncio.create_task(client.post(CHAT, json=body)) for body in bodies]
    while engine.go.is_set():
        await asyncio.sleep(0.01)
    losing = asyncio.create_task(fleet.lose("d0"))
    await asyncio.sleep(0.05)  # its sockets are closed before its engine ends
    engine.go.set()
    await losing
    for n, (body, task) in enumerate(zip(bodies, asking, strict=True)):
        assert tokens_of((await task).text) == truth(body, [prepared(file)] * (n % 2))
    fleet.tell()
    await fleet.sound()
    assert "epidote_resumes_total 0.0" not in (await client.get("/metrics")).text


async def test_roles_switch_while_answers_are_given(
    fleet: Fleet, client: httpx.AsyncClient
) -> None:
    done = asyncio.Event()
    count = 0

    async def ask(number: int) -> None:
        nonlocal count
        while not done.is_set():
            body = body_of(f"tell {number} {count}", max_tokens=60, stream=True)
            response = await client.post(CHAT, json=body)
            assert tokens_of(response.text) == truth(body)
            count += 1

    asking = [asyncio.create_task(ask(number)) for number in range(4)]
    for worker_id, role in (
        ("d1", "prefill"),
        ("p0", "decode"),
        ("d1", "decode"),
        ("p0", "prefill"),
    ):
        await asyncio.sleep(0.2)
        response = await client.put(f"/admin/workers/{worker_id}/role", json={"role": role})
        assert response.status_code == 200, response.text
    done.set()
    await asyncio.gather(*asking)
    assert count >= 4
    assert (await client.get("/readyz")).status_code == 200
    assert "epidote_resumes_total 0.0" in (await client.get("/metrics")).text, "nothing was lost"
    await fleet.sound()


async def test_a_client_that_leaves_leaves_nothing_behind(
    fleet: Fleet, client: httpx.AsyncClient, picture: Any, data_url: Any
) -> None:
    body = body_of("long", [data_url(picture())], max_tokens=2000, n=2, stream=True)
    for wait_s in (0.0, 0.01, 0.05, 0.3):
        asking = asyncio.create_task(client.post(CHAT, json=body))
        await asyncio.sleep(wait_s)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    await fleet.sound()
    assert (await client.get("/admin/conservation")).json()["is_sound"] is True
