"""Keys, tenants, and who waits when the gateway is full."""

import asyncio
import logging
from typing import Any

import pytest

from epidote_gateway.fakes import FakeBackend

CHAT = "/v1/chat/completions"
KEYS = (("ann", "key-a"), ("bob", "key-b"))


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


@pytest.mark.parametrize(
    "headers",
    [{}, bearer(""), bearer("key-"), bearer("key-ax"), bearer("KEY-A"),
     {"authorization": "key-a"}, {"authorization": "Basic key-a"}, {"api-key": "key-a"},
     bearer("ann"), bearer("ann:key-a"), {"authorization": b"Bearer \xff\xfe"}],
)  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/tokenize", "/nope"])
async def test_without_a_key_nobody_gets_in(
    make_client: Any, chat: Any, headers: Any, path: str
) -> None:
    client = make_client(api_keys=KEYS)
    response = await client.request(
        "GET" if path == "/v1/models" else "POST", path, json=chat(), headers=headers
    )
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("path", ["/health", "/healthz", "/livez", "/readyz", "/metrics"])
async def test_probes_and_scrapers_need_no_key(make_client: Any, path: str) -> None:
    assert (await make_client(api_keys=KEYS).get(path)).status_code == 200


async def test_tenants_share_no_prefix_unless_told(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    for isolate in (True, False):
        client = make_client(api_keys=KEYS, isolate_tenants=isolate)
        backend.requests.clear()
        for key in ("key-a", "key-b", "key-a"):
            body = chat(cache_salt="s") if isolate else chat()
            response = await client.post(CHAT, json=body, headers=bearer(key))
            assert response.status_code == 200
        salts = [request.cache_salt for request, _ in backend.requests]
        assert salts == (["ann\ns", "bob\ns", "ann\ns"] if isolate else ["", "", ""])


@pytest.mark.parametrize(
    ("settings", "key", "status"),
    [
        ({}, "", 200),
        ({"admin_key": "boss"}, "boss", 200),
        ({"admin_key": "boss"}, "", 401),
        ({"admin_key": "boss"}, "key-a", 401),
        ({"admin_key": "boss", "api_keys": KEYS}, "key-a", 401),
        ({"admin_key": "boss", "api_keys": KEYS}, "boss", 200),
        ({"api_keys": KEYS}, "key-a", 403),
        ({"api_keys": KEYS}, "", 403),
    ],
)
async def test_only_the_administrator_administrates(
    make_client: Any, settings: Any, key: str, status: int
) -> None:
    client = make_client(**settings)
    for path in ("/admin/fleet", "/admin/roles", "/admin/conservation"):
        response = await client.get(path, headers=bearer(key) if key else {})
        assert response.status_code == status


async def test_logs_have_neither_prompts_nor_keys(
    make_client: Any, chat: Any, caplog: Any, data_url: Any, picture: Any
) -> None:
    caplog.set_level(logging.DEBUG)
    client = make_client(api_keys=KEYS)
    body = chat("my secret words", data_url(picture()))
    await client.post(f"{CHAT}?q=hidden", json=body, headers=bearer("key-a"))
    await client.post(f"/v1/secret words/{'x' * 50}", json=body, headers=bearer("key-b"))
    await client.post(CHAT, json={**body, "temperature": 9}, headers=bearer("key-a"))
    lines = [
        str(vars(record)) for record in caplog.records if record.name.startswith("epidote_gateway")
    ]
    assert len(lines) == 3
    for line in lines:
        assert all(word not in line for word in ("secret", "hidden", "key-a", "key-b", "base64"))
        assert "duration_ms" in line


async def test_beyond_the_slots_requests_wait_and_beyond_the_queue_they_leave(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    client = make_client(max_concurrency=2, max_queue=3, retry_after_s=7)
    backend.delay_s = 0.005
    asked = [asyncio.create_task(client.post(CHAT, json=chat())) for _ in range(8)]
    most = 0
    while not all(task.done() for task in asked):
        most = max(most, backend.num_open)
        await asyncio.sleep(0.001)
    responses = [task.result() for task in asked]
    assert most == 2
    assert sorted(r.status_code for r in responses) == [200] * 5 + [429] * 3
    refused = next(r for r in responses if r.status_code == 429)
    assert refused.headers["retry-after"] == "7"
    assert refused.json()["error"]["code"] == "overloaded"
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_whoever_waits_too_long_leaves(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    client = make_client(max_concurrency=1, queue_timeout_s=0.05)
    backend.delay_s = 0.02
    first = asyncio.create_task(client.post(CHAT, json=chat()))
    await asyncio.sleep(0.01)
    assert (await client.post(CHAT, json=chat())).status_code == 429
    assert (await first).status_code == 200
    backend.delay_s = 0
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_the_queue_is_first_come_first_served(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    client = make_client(max_concurrency=1, queue_timeout_s=3600)
    backend.delay_s = 3600  # the first is never done
    asked = []
    for number in range(6):
        asked.append(asyncio.create_task(client.post(CHAT, json=chat(seed=number))))
        while f"epidote_requests_queued {number}.0" not in (await client.get("/metrics")).text:
            await asyncio.sleep(0.002)
    backend.delay_s = 0
    asked[0].cancel()
    await asyncio.gather(*asked[1:])
    assert [request.sampling.seed for request, _ in backend.requests] == list(range(6))


async def test_refused_requests_hold_no_slot(make_client: Any, chat: Any) -> None:
    client = make_client(max_concurrency=1, max_queue=0)
    for _ in range(3):
        assert (await client.post(CHAT, json=chat(model="nope"))).status_code == 404
        assert (await client.post(CHAT, json=chat("x", "data:"))).status_code == 400
    assert (await client.post(CHAT, json=chat())).status_code == 200


async def test_pages_elsewhere_may_ask_if_allowed(make_client: Any, chat: Any) -> None:
    preflight = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization,content-type",
    }
    client = make_client(api_keys=KEYS)
    refused = await client.options(CHAT, headers=preflight)
    assert "access-control-allow-origin" not in refused.headers
    client = make_client(api_keys=KEYS, cors_origins=("https://app.example",))
    allowed = await client.options(CHAT, headers=preflight)
    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == "https://app.example"
    answer = await client.post(
        CHAT, json=chat(), headers={"origin": "https://app.example", **bearer("key-a")}
    )
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    unauthorised = await client.post(CHAT, json=chat(), headers={"origin": "https://app.example"})
    assert unauthorised.status_code == 401
    assert unauthorised.headers["access-control-allow-origin"] == "https://app.example"


@pytest.mark.parametrize(
    ("settings", "key", "counts"),
    [
        ({}, "", True),  # a laptop: everybody administrates
        ({"api_keys": KEYS}, "key-a", False),
        ({"api_keys": KEYS, "admin_key": "key-a"}, "key-a", True),
        ({"api_keys": KEYS, "admin_key": "key-a"}, "key-b", False),
        ({"api_keys": KEYS, "client_priority": True}, "key-b", True),
    ],
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
async def test_who_may_overtake_others(
    make_client: Any,
    chat: Any,
    backend: FakeBackend,
    settings: Any,
    key: str,
    counts: bool,
    path: str,
) -> None:
    body = chat(priority=-5) if path == CHAT else {"prompt": "x", "priority": -5}
    response = await make_client(**settings).post(path, json=body, headers=bearer(key))
    assert response.status_code == 200, response.text
    assert backend.requests[0][0].priority == (-5 if counts else 0)
