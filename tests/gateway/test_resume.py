"""A worker dies while it serves: the client sees latency, nothing else."""

import asyncio
import json
from typing import Any

import httpx
import openai
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from epidote_core.errors import ComputeFailed, Overloaded, WorkerLost
from epidote_core.generation import GenerateRequest, Route, TokenChunk
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerLoad
from epidote_gateway.app import create_app
from epidote_gateway.backend import TokenStream
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings

CHAT = "/v1/chat/completions"


def events(text: str) -> list[dict[str, Any]]:
    found = [event.removeprefix("data: ") for event in text.split("\n\n") if event]
    assert found[-1] == "[DONE]"
    return [json.loads(event) for event in found[:-1]]


def texts_of(response: Any, n: int = 1) -> list[str]:
    """The text of each choice of a stream."""
    texts = [""] * n
    for event in events(response.text):
        assert "error" not in event, event
        for choice in event["choices"]:
            texts[choice["index"]] += choice["delta"].get("content", "")
    return texts


BUSY = WorkerLoad(num_kv_blocks=1000, num_free_kv_blocks=1000, num_running=20)
FIELDS: list[dict[str, Any]] = [
    {"temperature": 0},
    {"seed": 5},
    {"seed": 5, "n": 3},
    {"temperature": 0, "stop": ["漢", "na"]},
    {"seed": 9, "stop": ["oin", "e", " s"], "n": 2},
]


@pytest.mark.parametrize("fields", FIELDS, ids=str)
@pytest.mark.parametrize("after", [0, 1, 7, 30])
async def test_the_stream_goes_on_without_gap_or_repeat(
    client: Any, chat: Any, backend: FakeBackend, fields: dict[str, Any], after: int
) -> None:
    body = chat(stream=True, **{**fields, "max_tokens": 40})
    n = fields.get("n", 1)
    whole = texts_of(await client.post(CHAT, json=body), n)
    backend.put("decode-2", Role.DECODE, load=BUSY)  # chosen last
    backend.die_after = {f"decode-{number}": after for number in range(2)}
    resumed = texts_of(await client.post(CHAT, json=body), n)
    assert resumed == whole
    if after < 10:  # else one may have been enough, or a stop string came first
        assert len(backend.requests) == 4


@pytest.mark.parametrize("victim", ["prefill-0", "encode-0", "decode-0"])
async def test_any_stage_may_die(
    client: Any, chat: Any, backend: FakeBackend, victim: str, picture: Any, data_url: Any
) -> None:
    for role in (Role.PREFILL, Role.ENCODE, Role.DECODE):
        for number in range(1, 3):
            backend.put(f"{role.value}-{number}", role)
    body = chat("see", data_url(picture()), stream=True, temperature=0)
    whole = texts_of(await client.post(CHAT, json=body))
    role = victim.split("-")[0]
    for worker_id in [w for w in backend.fleet if w.startswith(role) and w != victim]:
        backend.kill(worker_id)
    backend.die_after = {victim: 4 if role != "encode" else 0}

    async def replace() -> None:
        while victim in backend.fleet:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        backend.put(f"{role}-new", Role(role))

    resumed, _ = await asyncio.gather(client.post(CHAT, json=body), replace())
    assert texts_of(resumed) == whole


async def test_finished_choices_are_not_asked_for_again(
    client: Any, chat: Any, backend: FakeBackend
) -> None:
    body = chat(stream=True, seed=9, n=3, stop=["oin", "e", " s"], max_tokens=60)
    whole = texts_of(await client.post(CHAT, json=body), 3)
    first = backend.requests[-1][0]
    backend.die_after = {f"decode-{number}": 25 for number in range(3)}
    backend.put("decode-9", Role.DECODE)
    assert texts_of(await client.post(CHAT, json=body), 3) == whole
    resumed = backend.requests[-1][0]
    assert len(first.choices) == 3
    assert all(choice.emitted_token_ids for choice in resumed.choices)


@settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(
    deaths=st.lists(st.integers(0, 12), max_size=4),
    stop=st.lists(st.text("etaoin shrdlu漢", min_size=1, max_size=3), max_size=2),
    seed=st.integers(0, 50),
    tokens_per_chunk=st.integers(1, 5),
    chunks_per_item=st.integers(1, 3),
)
async def test_no_series_of_deaths_changes_the_text(
    client: Any, chat: Any, backend: FakeBackend, deaths: list[int], stop: list[str], seed: int,
    tokens_per_chunk: int, chunks_per_item: int,
) -> None:  # fmt: skip
    for number in range(6):
        backend.put(f"decode-{number}", Role.DECODE)
    backend.tokens_per_chunk, backend.chunks_per_item = 1, 1
    body = chat(stream=True, seed=seed, stop=stop, n=2, max_tokens=30)
    whole = texts_of(await client.post(CHAT, json=body), 2)
    backend.tokens_per_chunk, backend.chunks_per_item = tokens_per_chunk, chunks_per_item
    backend.die_after = {f"decode-{number}": life for number, life in enumerate(deaths)}
    assert texts_of(await client.post(CHAT, json=body), 2) == whole


async def test_usage_counts_every_token_once(client: Any, chat: Any, backend: FakeBackend) -> None:
    backend.die_after = {"decode-0": 5, "decode-1": 5}
    answer = (await client.post(CHAT, json=chat(max_tokens=30))).json()
    assert answer["usage"]["completion_tokens"] == 30
    assert "epidote_resumes_total 0.0" not in (await client.get("/metrics")).text


async def test_nobody_left_before_the_stream_is_a_503(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    client = make_client(no_worker_timeout_s=0.05)
    for number in range(3):
        backend.kill(f"decode-{number}")
    for stream in (False, True):
        response = await client.post(CHAT, json=chat(stream=stream))
        assert response.status_code == 503
        error = response.json()["error"]
        assert error["code"] == "no_worker_available"
        assert "decode" in error["message"]
        assert response.headers["retry-after"]


async def test_nobody_left_in_mid_stream_is_an_error_event(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    client = make_client(no_worker_timeout_s=0.05)
    backend.die_after = {f"decode-{number}": 3 for number in range(3)}
    response = await client.post(CHAT, json=chat(stream=True))
    assert response.status_code == 200
    found = events(response.text)
    assert found[-1]["error"]["code"] == "no_worker_available"
    assert found[-1]["error"]["type"] == "server_error"
    assert all("error" not in event for event in found[:-1])


async def test_openai_s_client_raises_on_an_error_event(
    make_openai: Any, backend: FakeBackend
) -> None:
    client = await make_openai(no_worker_timeout_s=0.05)
    backend.die_after = {f"decode-{number}": 3 for number in range(3)}
    stream = await client.chat.completions.create(
        model="fake-vl", messages=[{"role": "user", "content": "hi"}], max_tokens=50, stream=True
    )
    with pytest.raises(openai.APIError, match="decode"):
        async for _ in stream:
            pass


async def test_a_stage_without_worker_for_a_moment_is_waited_for(
    client: Any, chat: Any, backend: FakeBackend
) -> None:
    for number in range(2):
        backend.put(f"prefill-{number}", Role.PREFILL, state=WorkerState.SWITCHING)

    async def back() -> None:
        await asyncio.sleep(0.1)
        backend.put("prefill-0", Role.PREFILL, epoch=2)

    response, _ = await asyncio.gather(client.post(CHAT, json=chat()), back())
    assert response.status_code == 200


async def test_a_worker_that_only_refused_is_tried_again(
    client: Any, chat: Any, backend: FakeBackend
) -> None:
    for number in range(1, 3):
        backend.kill(f"decode-{number}")
    refusals = 0

    def refuse(request: GenerateRequest, route: Route) -> None:
        nonlocal refusals
        refusals += 1
        if refusals == 1:
            raise WorkerLost("switching", worker_id="decode-0")

    backend.accept = refuse

    async def switch_back() -> None:
        await asyncio.sleep(0.05)
        backend.put("decode-0", Role.DECODE, epoch=2)

    response, _ = await asyncio.gather(client.post(CHAT, json=chat()), switch_back())
    assert response.status_code == 200


async def test_a_planned_move_counts_no_loss_and_warns_nobody(
    make_client: Any, chat: Any, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def refuse(request: GenerateRequest, route: Route) -> None:
        if len(backend.requests) <= 2:
            raise WorkerLost("drains", worker_id=route.decode, is_planned=True)

    backend.accept = refuse
    client = make_client(max_resumes=0)
    assert (await client.post(CHAT, json=chat())).status_code == 200
    metrics = (await client.get("/metrics")).text
    assert "epidote_resumes_total 0.0" in metrics
    assert "epidote_moves_total 2.0" in metrics
    ours = [r for r in caplog.records if r.name.startswith("epidote_gateway")]
    assert not [r for r in ours if r.levelname in ("WARNING", "ERROR")]
    assert "worker handed on its work" in caplog.messages


async def test_too_many_losses_end_the_request(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    def refuse(request: GenerateRequest, route: Route) -> None:
        raise WorkerLost("gone", worker_id="somebody-else")

    backend.accept = refuse
    client = make_client(max_resumes=3)
    response = await client.post(CHAT, json=chat())
    assert response.status_code == 503
    assert len(backend.requests) == 4


async def test_a_request_that_breaks_two_workers_is_given_up_and_says_so(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    def die(request: GenerateRequest, route: Route) -> None:
        if len(backend.requests) == 1:  # planned moves do not count
            raise WorkerLost("drains", worker_id="somebody", is_planned=True)
        raise WorkerLost("the engine's thread died", worker_id=route.decode, is_death=True)

    backend.accept = die
    response = await make_client().post(CHAT, json=chat())
    assert response.status_code == 500
    error = response.json()["error"]
    assert error["type"] == "server_error"
    assert error["code"] == "workers_broke"
    assert "2 workers broke while they computed this request" in error["message"]
    assert len(backend.requests) == 3


async def test_a_request_that_cannot_be_computed_is_a_500_at_once(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    def fail(request: GenerateRequest, route: Route) -> None:
        raise ComputeFailed("no token can be chosen")

    backend.accept = fail
    response = await make_client().post(CHAT, json=chat())
    assert response.status_code == 500
    assert response.json()["error"]["message"] == "no token can be chosen"
    assert len(backend.requests) == 1


async def test_a_full_fleet_is_waited_for(client: Any, chat: Any, backend: FakeBackend) -> None:
    def refuse(request: GenerateRequest, route: Route) -> None:
        if len(backend.requests) < 4:
            raise Overloaded("no blocks", retry_after_s=0.01)

    backend.accept = refuse
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_a_fleet_that_stays_full_is_a_429(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    def refuse(request: GenerateRequest, route: Route) -> None:
        raise Overloaded("no blocks", retry_after_s=2.5)

    backend.accept = refuse
    client = make_client(queue_timeout_s=0.1)
    response = await client.post(CHAT, json=chat(stream=True))
    assert response.status_code == 429
    assert response.headers["retry-after"] == "3"
    assert response.json()["error"]["type"] == "rate_limit_error"


class Hanging(FakeBackend):
    """A fleet whose `decode-0` gives some tokens, then nothing, then nothing at all."""

    def generate(self, request: GenerateRequest, route: Route) -> TokenStream:
        inner = super().generate(request, route)
        return self._hang(inner) if route.decode == "decode-0" else inner

    async def _hang(self, inner: Any) -> Any:
        try:
            for _ in range(3):
                item: list[TokenChunk] = await anext(inner)
                yield item
            await asyncio.sleep(3600)
        finally:
            await inner.aclose()


async def test_a_worker_that_hangs_counts_as_lost(chat: Any) -> None:
    backend = Hanging.of({Role.PREFILL: 1, Role.DECODE: 1})
    app = create_app(backend, FakeRenderer(), GatewaySettings(stall_timeout_s=0.05))
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        asking = asyncio.create_task(client.post(CHAT, json=chat(stream=True, temperature=0)))
        while not backend.num_open:  # with `decode-0`: there is no other
            await asyncio.sleep(0.005)
        backend.put("decode-1", Role.DECODE)
        resumed = texts_of(await asking)
        assert backend.num_open == 0
        backend.kill("decode-0")
        assert texts_of(await client.post(CHAT, json=chat(stream=True, temperature=0))) == resumed


async def test_no_first_token_in_time_is_a_503(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    backend.delay_s = 10
    client = make_client(first_token_timeout_s=0.05)
    response = await client.post(CHAT, json=chat())
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "timeout"
    assert backend.num_open == 0
