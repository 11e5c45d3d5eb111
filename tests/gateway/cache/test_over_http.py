"""The cache as clients and administrators see it: a running gateway, the real OpenAI client."""

import asyncio
import base64
import json
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, closing
from io import BytesIO
from pathlib import Path
from random import Random
from typing import Any

import httpx
import pytest
import uvicorn
from openai import AsyncOpenAI
from PIL import Image
from typer.testing import CliRunner

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.cache.fakes import WordMeaning
from epidote_gateway.cache.meaning.model_files import model_directory
from epidote_gateway.cache.policy_file import WATCH_S, PolicyFile
from epidote_gateway.cache.response_cache import Collaborators, ResponseCache
from epidote_gateway.cache.sqlite_store import SqliteStore
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings
from epidote_workers.cli import app as cli

A, B = "what colour is the car in this picture", "in this picture what colour is the car"
C = "what colour has the car in this picture"
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


def picture(seed: int = 0) -> Image.Image:
    return Image.frombytes("RGB", (48, 32), Random(seed).randbytes(48 * 32 * 3))


def file_url(image: Image.Image, format: str = "PNG") -> str:
    file = BytesIO()
    image.save(file, format, **({"lossless": True} if format == "WEBP" else {}))
    data = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{format.lower()};base64,{data}"


def about(text: str, *urls: str) -> list[Any]:
    parts = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [{"type": "text", "text": text}, *parts]}]


async def ask(openai: AsyncOpenAI, messages: list[Any], **more: Any) -> tuple[str, str]:
    """(answer, cache header)."""
    fields = {"model": "fake-vl", "max_tokens": 20, "temperature": 0, **more}
    raw = await openai.chat.completions.with_raw_response.create(messages=messages, **fields)
    answer = raw.parse()
    if not fields.get("stream"):
        return answer.choices[0].message.content, raw.headers[HEADER]
    texts = [c.choices[0].delta.content or "" async for c in answer if c.choices]
    return "".join(texts), raw.headers[HEADER]


async def test_a_paraphrase_about_the_same_picture_hits_about_another_one_it_misses(
    gateway: Gateway, openai: AsyncOpenAI
) -> None:
    first, header = await ask(openai, about(A, file_url(picture())))
    assert header.startswith("miss; why=nothing-near")
    second, header = await ask(openai, about(B, file_url(picture())))
    assert header.startswith("hit; kind=semantic; category=default; similarity=")
    assert second == first
    other, header = await ask(openai, about(B, file_url(picture(seed=1))))
    assert header.startswith("miss")
    assert other != first
    assert gateway.num_asked == 2


@pytest.mark.parametrize("format", ["BMP", "WEBP"])
async def test_the_same_picture_in_another_lossless_file_hits(
    gateway: Gateway, openai: AsyncOpenAI, format: str
) -> None:
    first, _ = await ask(openai, about(A, file_url(picture(), "PNG")))
    again, header = await ask(openai, about(A, file_url(picture(), format)))
    assert header.startswith("hit; kind=exact")
    assert again == first


async def test_one_changed_pixel_is_another_picture(gateway: Gateway, openai: AsyncOpenAI) -> None:
    await ask(openai, about(A, file_url(picture())))
    changed = picture()
    red, green, blue = changed.getpixel((7, 5))  # type: ignore[misc]
    changed.putpixel((7, 5), (red ^ 1, green, blue))
    _, header = await ask(openai, about(A, file_url(changed)))
    assert header.startswith("miss")
    assert gateway.num_asked == 2


async def test_the_order_of_pictures_matters(gateway: Gateway, openai: AsyncOpenAI) -> None:
    one, two = file_url(picture(1)), file_url(picture(2))
    await ask(openai, about(A, one, two))
    assert (await ask(openai, about(A, two, one)))[1].startswith("miss")
    assert (await ask(openai, about(A, one)))[1].startswith("miss")
    assert (await ask(openai, about(A, one, two)))[1].startswith("hit")


@pytest.mark.parametrize(("first", "second"), [(True, False), (False, True)])
async def test_streamed_and_whole_answers_serve_each_other(
    gateway: Gateway, openai: AsyncOpenAI, first: bool, second: bool
) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    one, _ = await ask(openai, about(A), stream=first, **(options if first else {}))
    other, header = await ask(openai, about(A), stream=second, **(options if second else {}))
    assert header.startswith("hit; kind=exact")
    assert one == other
    assert gateway.num_asked == 1


async def test_a_hit_streams_the_very_events_of_its_original(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    body = {
        "model": "fake-vl",
        "messages": [{"role": "user", "content": A}],
        "max_tokens": 12,
        "temperature": 0,
        "stream": True,
        "logprobs": True,
        "top_logprobs": 2,
        "stream_options": {"include_usage": True},
    }

    async def events() -> list[Any]:
        text = (await http.post("/v1/chat/completions", json=body)).text
        lines = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
        assert lines[-1] == "[DONE]"
        found = [json.loads(line) for line in lines[:-1]]
        for event in found:
            del event["id"], event["created"]
        return found

    assert await events() == await events()
    assert gateway.num_asked == 1


async def test_completions_of_several_prompts_tell_each_ones_fate(start: Any) -> None:
    gateway = await start(policy="requests: {truncated: true}")

    async def told(*prompts: str) -> str:
        body = {"model": "fake-vl", "prompt": list(prompts), "max_tokens": 5, "temperature": 0}
        async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as http:
            response = await http.post("/v1/completions", json=body)
        assert len(response.json()["choices"]) == len(prompts)
        header: str = response.headers[HEADER]
        return header

    await told("one")
    header = await told("one", "two")
    first, second = header.split(", ")
    assert first.startswith("hit; kind=exact")
    assert second.startswith("miss")


async def test_request_controls_come_by_header_and_by_body(
    gateway: Gateway, openai: AsyncOpenAI
) -> None:
    await ask(openai, about(A))
    for more in (
        {"extra_headers": {"cache-control": "no-cache"}},
        {"extra_body": {"cache": {"no-cache": True}}},
    ):
        assert (await ask(openai, about(A), **more))[1].startswith("miss; why=no-cache")
    for more in (
        {"extra_headers": {"cache-control": "no-store"}},
        {"extra_body": {"cache": {"no-store": True}}},
    ):
        assert (await ask(openai, about(A), **more))[1] == "bypass; why=no-store"
    named = {"extra_headers": {"x-epidote-category": "private"}}
    assert (await ask(openai, about("new"), **named))[1].startswith("bypass; why=category-disabled")
    assert (await ask(openai, about("my salary")))[1].startswith("bypass; why=category-disabled")
    assert (await ask(openai, about(A), user="ann"))[1] == "bypass; why=personalized"
    assert (await ask(openai, about(A), temperature=0.5))[1] == "bypass; why=temperature"


async def test_no_store_counts_on_whichever_line_of_the_header(http: httpx.AsyncClient) -> None:
    body = {"messages": [{"role": "user", "content": A}], "temperature": 0}
    for values in (("no-store", "max-age=9"), ("max-age=9", "no-store"), ("no-store;max-age=1",)):
        headers = [("cache-control", value) for value in values]
        response = await http.post("/v1/chat/completions", json=body, headers=headers)
        assert response.headers[HEADER] == "bypass; why=no-store", values


async def test_tenants_never_share_and_report_only_their_own_hits(start: Any) -> None:
    gateway = await start(api_keys=(("a", "key-a"), ("b", "key-b")), admin_key="boss")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0, timeout=120)
            )
            for key in ("key-a", "key-b")
        ]
        assert (await ask(clients[0], about(A)))[1].startswith("miss")
        assert (await ask(clients[1], about(A)))[1].startswith("miss")
        _, header = await ask(clients[0], about(B))
        assert header.startswith("hit; kind=semantic")
        entry_id = header.rpartition("id=")[2]
        http = await stack.enter_async_context(httpx.AsyncClient(base_url=gateway.url, timeout=120))

        async def report(key: str, path: str = "/v1/cache/feedback") -> int:
            headers = {"authorization": f"Bearer {key}"}
            response = await http.post(path, json={"id": entry_id}, headers=headers)
            return response.status_code

        assert await report("nobody") == 401
        assert await report("key-b") == 404
        assert await report("key-a", "/admin/cache/feedback") == 401
        assert await report("key-a") == 200
        assert await report("key-a") == 404
        assert (await ask(clients[0], about(B)))[1].startswith("miss")


async def test_administrators_look_up_evict_and_invalidate(
    gateway: Gateway, openai: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    for text in (A, "the train leaves at 7", "something else"):
        await ask(openai, about(text))
    stats = (await http.get("/admin/cache")).json()
    assert (stats["entries"], stats["is_loaded"]) == (3, True)
    assert stats["categories"]["private"]["enabled"] is False
    body = {"text": "the train leaves at 8", "limit": 2}
    found = (await http.post("/admin/cache/lookup", json=body)).json()
    near = found["neighbours"][0]
    assert near["entry"]["text"] == "the train leaves at 7"
    assert (near["refused_by"], near["is_near_enough"]) == ("numbers", True)
    assert (near["entry"]["num_turns"], found["num_contexts"]) == (0, 1)
    path = f"/admin/cache/entries/{near['entry']['id']}"
    assert len((await http.get(path)).json()["choices"]) == 1
    assert (await http.delete(path)).json()["num_entries"] == 1
    assert (await http.get(path)).status_code == 404
    assert (await http.delete(path)).status_code == 404
    dry = {"category": "default", "dry_run": True}
    assert (await http.post("/admin/cache/invalidate", json=dry)).json()["num_entries"] == 2
    assert (await http.get("/admin/cache")).json()["entries"] == 2
    assert (await http.post("/admin/cache/invalidate", json={})).status_code == 400
    unknown = (await http.post("/admin/cache/invalidate", json={"category": "defualt"})).json()
    assert unknown["error"]["param"] == "category"
    assert "default, private" in unknown["error"]["message"]
    wrong = {"category": "default", "colour": "red"}
    refused = await http.post("/admin/cache/invalidate", json=wrong)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "colour")
    assert (await http.post("/admin/cache/flush", json={})).json()["num_entries"] == 2
    assert (await ask(openai, about(A)))[1].startswith("miss")


async def test_a_flush_that_the_store_cannot_take_yet_says_so(
    gateway: Gateway, openai: AsyncOpenAI, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("epidote_gateway.cache.response_cache.REMOVAL_S", 0.2)
    await ask(openai, about(A))
    file = gateway.folder / "answers.sqlite3"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        rows = "select count(*) from entries where facts is not null"
        async with asyncio.timeout(60):
            while other.execute(rows).fetchone() != (1,):
                await asyncio.sleep(0.01)
        other.execute("begin immediate")  # a process that writes and writes
        flushed = await http.post("/admin/cache/flush", json={})
        assert (flushed.status_code, flushed.json()["pending"]) == (202, 1)
        assert (await ask(openai, about(A)))[1].startswith("miss")
        other.execute("rollback")
        monkeypatch.setattr("epidote_gateway.cache.response_cache.REMOVAL_S", 60.0)
        flushed = await http.post("/admin/cache/flush", json={})
        assert (flushed.status_code, flushed.json()["pending"]) == (200, 0)
        assert other.execute(rows).fetchone() == (0,)


async def test_a_look_up_tells_follow_ups_from_first_questions(
    openai: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    await ask(openai, [{"role": "user", "content": A}])
    await ask(openai, [*turns, {"role": "user", "content": A}])
    found = (await http.post("/admin/cache/lookup", json={"text": A})).json()
    near = {n["entry"]["num_turns"]: n["entry"]["context"] for n in found["neighbours"]}
    assert near.keys() == {0, 2}
    assert found["num_contexts"] == 2
    body = {"text": A, "context": near[2][:8]}
    found = (await http.post("/admin/cache/lookup", json=body)).json()
    assert [n["entry"]["num_turns"] for n in found["neighbours"]] == [2]


async def test_the_command_tells_contexts_apart_and_promises_no_hit(
    gateway: Gateway, openai: AsyncOpenAI
) -> None:
    turns = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    await ask(openai, [{"role": "user", "content": A}])
    await ask(openai, [*turns, {"role": "user", "content": A}])

    async def said(*arguments: str) -> str:
        command = ["cache", "lookup", *arguments, "--url", gateway.url]
        ran = await asyncio.to_thread(CliRunner().invoke, cli, command)
        assert ran.exit_code == 0, ran.output
        return ran.output

    told = await said(A)
    assert "after 2 turns" in told
    assert "only for requests with the same one" in told
    first = next(line for line in told.splitlines() if " first " in line)
    assert "after 2 turns" not in await said(A, "--context", first.split()[0])
    assert "never looked up" in await said("my salary")


async def test_where_tenants_share_answers_only_an_administrator_takes_one_away(start: Any) -> None:
    gateway = await start(
        policy=POLICY.replace("spec:", "spec:\n  tenants: {isolated: false}"),
        api_keys=(("a", "key-a"), ("b", "key-b")),
        admin_key="boss",
    )
    async with httpx.AsyncClient(base_url=gateway.url, timeout=120) as http:

        async def post(path: str, key: str, body: Any) -> httpx.Response:
            return await http.post(path, json=body, headers={"authorization": f"Bearer {key}"})

        question = {"messages": [{"role": "user", "content": A}], "temperature": 0}
        await post("/v1/chat/completions", "key-a", question)
        hit = (await post("/v1/chat/completions", "key-b", question)).headers[HEADER]
        assert hit.startswith("hit")
        report = {"id": hit.rpartition("id=")[2]}
        assert (await post("/v1/cache/feedback", "key-b", report)).status_code == 403
        assert (await post("/admin/cache/feedback", "boss", report)).status_code == 200


async def test_metrics_count_by_category_and_reason(
    gateway: Gateway, openai: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    for text in (A, A, B, "in 5 minutes", "in 6 minutes"):
        await ask(openai, about(text))
    shown = (await http.get("/metrics")).text
    hits = 'epidote_cache_hits_total{category="default",kind="%s",relaxed="false"} 1.0'
    assert hits % "exact" in shown
    assert hits % "semantic" in shown
    assert 'epidote_cache_refusals_total{category="default",reason="numbers"} 1.0' in shown
    assert 'epidote_cache_hit_ratio{category="default"} 0.4' in shown
    assert 'epidote_cache_entries{category="default"} 3.0' in shown
    assert 'epidote_cache_saved_tokens_total{category="default"} 40.0' in shown
    assert "epidote_cache_lookup_seconds_count 5" in shown


async def test_a_changed_policy_file_is_in_force_within_five_seconds(
    gateway: Gateway, openai: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    await ask(openai, about(A))
    assert WATCH_S <= 2.0  # two looks, and making the judges
    gateway.policy.write_text(POLICY.replace("0.7", "0.999"))
    async with asyncio.timeout(60):  # a busy machine; an idle one takes one second
        while True:
            stats = (await http.get("/admin/cache")).json()
            if stats["categories"]["default"]["threshold"] == 0.999:
                break
            await asyncio.sleep(0.05)
    assert (await ask(openai, about(C)))[1].startswith("miss; why=below-threshold")
    assert (await ask(openai, about(A)))[1].startswith("hit; kind=exact")


async def test_a_policy_may_be_put_and_a_bad_one_is_refused_by_field(
    gateway: Gateway, openai: AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    spec = (await http.get("/admin/cache/policy")).json()["spec"]
    spec["categories"][0]["threshold"] = 0.99
    assert (await http.put("/admin/cache/policy", json={"spec": spec})).status_code == 200
    await ask(openai, about(A))
    assert (await ask(openai, about(C)))[1].startswith("miss; why=below-threshold")
    spec["categories"][0]["ttlSeconds"] = -1
    refused = await http.put("/admin/cache/policy", json={"spec": spec})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "spec.categories[0].ttlSeconds"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"kind": "Deployment", "spec": {}}, "kind"),
        ({"apiVersion": "apps/v1", "spec": {}}, "apiVersion"),
        ({"spec": {"embedder": {"model": "/no/such/model"}}}, "spec.embedder.model"),
    ],
)
async def test_what_is_no_policy_that_can_be_honoured_changes_nothing(
    gateway: Gateway,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    body: Any,
    param: str,
) -> None:
    judged = WordMeaning.embedder

    async def embedder(self: WordMeaning, policy: Any) -> Any:
        if policy.embedder.model.startswith("/"):
            model_directory(policy.embedder.model)  # the real one's refusal
        return await judged(self, policy)

    monkeypatch.setattr(WordMeaning, "embedder", embedder)
    before = (await http.get("/admin/cache/policy")).json()
    refused = await http.put("/admin/cache/policy", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, param)
    assert (await http.get("/admin/cache/policy")).json() == before
    assert (await http.put("/admin/cache/policy", json=before)).status_code == 200


async def test_the_planners_pressure_is_taken_within_its_range(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    assert (await http.put("/admin/cache/pressure", json={"pressure": 0.5})).status_code == 200
    assert (await http.get("/admin/cache")).json()["signal"] == 0.5
    assert (await http.put("/admin/cache/pressure", json={"pressure": 2})).status_code == 400


async def test_the_openapi_document_has_the_caches_endpoints(
    gateway: Gateway, http: httpx.AsyncClient
) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    found = {(m.upper(), path) for path, methods in paths.items() for m in methods}
    assert {
        ("GET", "/admin/cache"),
        ("DELETE", "/admin/cache/entries/{entry_id}"),
        ("PUT", "/admin/cache/policy"),
        ("POST", "/v1/cache/feedback"),
    } <= found
    plain = create_app(FakeBackend.of(FLEET), FakeRenderer(), GatewaySettings())
    assert not [path for path in plain.openapi()["paths"] if "cache" in path]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/admin/cache/lookup", {"text": ""}, 400),
        ("POST", "/admin/cache/lookup", {"text": "x", "limit": 0}, 400),
        ("POST", "/admin/cache/invalidate", {"older_than_s": -1}, 400),
        ("POST", "/admin/cache/feedback", {"id": "unknown"}, 404),
        ("POST", "/v1/cache/feedback", {}, 400),
        ("PUT", "/admin/cache/policy", {"spec": {"nonsense": 1}}, 400),
        ("PUT", "/admin/cache/pressure", {"pressure": None}, 400),
        ("GET", "/admin/cache/entries/unknown", None, 404),
        ("POST", "/admin/cache", None, 405),
    ],
)
async def test_a_bad_call_is_an_ordinary_error(
    http: httpx.AsyncClient, method: str, path: str, body: Any, status: int
) -> None:
    response = await http.request(method, path, json=body)
    assert response.status_code == status, response.text
    assert response.json()["error"]["message"]


@pytest.mark.parametrize(
    "cache",
    [
        {"max-age": -1},
        {"no-cache": "yes"},
        {"category": ""},
        {"no_store": True},  # with a hyphen it would be known
        {"ttl": 60},
        5,
    ],
)
async def test_a_bad_cache_field_is_named(http: httpx.AsyncClient, cache: Any) -> None:
    body = {"messages": [{"role": "user", "content": "x"}], "cache": cache}
    response = await http.post("/v1/chat/completions", json=body)
    assert response.status_code == 400
    assert response.json()["error"]["param"].startswith("cache")
