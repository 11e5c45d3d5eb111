"""The cache as administrators see it: entries looked up, evicted, reported; what is counted."""

import asyncio
import sqlite3
from contextlib import AsyncExitStack, closing
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from typer.testing import CliRunner

from epidote_core.roles import Role
from epidote_gateway.app import create_app
from epidote_gateway.fakes import FakeBackend, FakeRenderer
from epidote_gateway.settings import GatewaySettings
from epidote_workers.cli import app as cli

A, B = "what colour is the car in this picture", "in this picture what colour is the car"
HEADER = "x-epidote-cache"


async def test_tenants_never_share_and_report_only_their_own_hits(
    start: Any, ask: Any, about: Any
) -> None:
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
    gateway: Any, openai: AsyncOpenAI, http: httpx.AsyncClient, ask: Any, about: Any
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
    gateway: Any,
    openai: AsyncOpenAI,
    http: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    ask: Any,
    about: Any,
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
    openai: AsyncOpenAI, http: httpx.AsyncClient, ask: Any
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
    gateway: Any, openai: AsyncOpenAI, ask: Any
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


async def test_where_tenants_share_answers_only_an_administrator_takes_one_away(
    start: Any, policy_text: str
) -> None:
    gateway = await start(
        policy=policy_text.replace("spec:", "spec:\n  tenants: {isolated: false}"),
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
    gateway: Any, openai: AsyncOpenAI, http: httpx.AsyncClient, ask: Any, about: Any
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


async def test_the_openapi_document_has_the_caches_endpoints(
    gateway: Any, http: httpx.AsyncClient
) -> None:
    paths = (await http.get("/openapi.json")).json()["paths"]
    found = {(m.upper(), path) for path, methods in paths.items() for m in methods}
    assert {
        ("GET", "/admin/cache"),
        ("DELETE", "/admin/cache/entries/{entry_id}"),
        ("PUT", "/admin/cache/policy"),
        ("POST", "/v1/cache/feedback"),
    } <= found
    plain = create_app(FakeBackend.of({Role.ALL: 1}), FakeRenderer(), GatewaySettings())
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
