"""Probes, metrics and the endpoints that watch and change the fleet."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epidote_core import metric_names
from epidote_core.roles import Role, WorkerState
from epidote_core.transfer_count import Direction, Transfer, TransferCount
from epidote_core.worker_view import ExpertsView, WorkerLoad
from epidote_gateway.fakes import FakeBackend

CHAT = "/v1/chat/completions"


async def test_alive_and_ready_are_two_questions(client: Any, backend: FakeBackend) -> None:
    assert (await client.get("/readyz")).json()["details"]["roles"]["decode"] == 3
    for number in range(2):
        backend.put(f"encode-{number}", Role.ENCODE, state=WorkerState.DRAINING)
    response = await client.get("/readyz")
    assert response.status_code == 503
    assert response.json()["error"]["message"] == "no routable worker serves: encode"
    assert (await client.get("/health")).json() == {"status": "ok"}
    backend.put("a", Role.ALL)
    assert (await client.get("/readyz")).status_code == 200


async def test_the_fleet_shows_every_worker(client: Any, backend: FakeBackend) -> None:
    load = WorkerLoad(num_running=3, num_kv_blocks=9, num_free_kv_blocks=4)
    backend.put("a", Role.ALL, state=WorkerState.FAILED, load=load, media_keys=frozenset("xyz"))
    fleet = (await client.get("/admin/fleet")).json()
    assert fleet["model"] == "fake-vl"
    assert fleet["roles"] == {"encode": 2, "prefill": 2, "decode": 3, "all": 0}
    shown = {worker["worker_id"]: worker for worker in fleet["workers"]}
    assert list(shown) == sorted(shown)
    assert shown["a"]["state"] == "failed"
    assert shown["a"]["load"]["num_running"] == 3
    assert shown["a"]["num_cached_media"] == 3


async def test_roles_are_read_and_set(client: Any, backend: FakeBackend) -> None:
    assert (await client.get("/admin/roles")).json()["prefill"] == 2
    response = await client.put("/admin/roles", json={"encode": 1, "prefill": 1, "decode": 5})
    assert response.status_code == 200
    assert response.json()["roles"] == {"encode": 1, "prefill": 1, "decode": 5, "all": 0}
    assert {o["to_role"] for o in response.json()["outcomes"]} == {"decode"}
    assert (await client.get("/admin/roles")).json()["decode"] == 5
    metrics = (await client.get("/metrics")).text
    assert 'epidote_role_switches_total{from_role="encode",outcome="ok",to_role="decode"} 1' in (
        metrics
    )


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("PUT", "/admin/roles", {"encode": 1}, 400, "roles"),
        ("PUT", "/admin/roles", {"encode": -1}, 400, "encode"),
        ("PUT", "/admin/roles", {"endcode": 1}, 400, "endcode"),
        ("PUT", "/admin/roles", [], 400, None),
        ("PUT", "/admin/workers/nobody/role", {"role": "all"}, 404, "worker_id"),
        ("PUT", "/admin/workers/decode-0/role", {"role": "chef"}, 400, "role"),
        ("PUT", "/admin/workers/decode-0/role", {}, 400, "role"),
        ("PUT", "/admin/workers/decode-0/role", {"role": "all", "deadline_s": 0}, 400,
         "deadline_s"),
        ("PUT", "/admin/workers/decode-0/role", {"role": "all", "epoch": 7}, 409, "epoch"),
        ("POST", "/admin/scale", {"num_workers": 0}, 400, "num_workers"),
        ("POST", "/admin/scale", {"num_workers": 1025}, 400, "num_workers"),
        ("POST", "/admin/scale", {"num_workers": "many"}, 400, "num_workers"),
    ],
)  # fmt: skip
async def test_a_bad_order_is_refused(
    client: Any, method: str, path: str, body: Any, status: int, field: str | None
) -> None:
    response = await client.request(method, path, json=body)
    assert response.status_code == status, response.text
    assert response.json()["error"]["param"] == field


async def test_one_worker_is_switched(client: Any, backend: FakeBackend) -> None:
    body = {"role": "prefill", "epoch": 1}
    response = await client.put("/admin/workers/decode-1/role", json=body)
    outcome = response.json()["outcomes"][0]
    assert (outcome["from_role"], outcome["to_role"]) == ("decode", "prefill")
    assert (outcome["ok"], outcome["epoch"]) == (True, 2)
    assert backend.fleet["decode-1"].role is Role.PREFILL


async def test_a_switch_rolled_back_is_a_conflict(client: Any, backend: FakeBackend) -> None:
    switch = backend.switch_role

    async def fail(worker_id: str, role: Role, *, deadline_s: float) -> Any:
        outcome = await switch(worker_id, backend.fleet[worker_id].role, deadline_s=deadline_s)
        return replace(outcome, to_role=role, ok=False, message="not drained in 5 s")

    backend.switch_role = fail  # type: ignore[method-assign]
    response = await client.put("/admin/workers/decode-1/role", json={"role": "prefill"})
    assert response.status_code == 409
    assert response.json()["outcomes"][0]["message"] == "not drained in 5 s"


async def test_an_order_that_takes_too_long_is_a_504(
    make_client: Any, backend: FakeBackend
) -> None:
    async def hang() -> Any:
        await asyncio.sleep(10)

    backend.conservation = hang  # type: ignore[method-assign]
    response = await make_client(admin_timeout_s=0.05).get("/admin/conservation")
    assert response.status_code == 504


async def test_scaling_is_asked_for(client: Any, backend: FakeBackend) -> None:
    response = await client.post("/admin/scale", json={"num_workers": 9})
    assert response.status_code == 202
    assert response.json() == {"num_workers": 9, "num_current": 7}
    assert backend.wanted_workers == 9


async def test_conservation_tells_who_lost_what(client: Any, backend: FakeBackend) -> None:
    assert (await client.get("/admin/conservation")).json()["is_sound"] is True

    async def broken() -> Any:
        return {"a": [], "b": ["block 3 has no owner"]}

    async def silent() -> Any:
        return {}

    backend.conservation = silent  # type: ignore[method-assign]
    assert (await client.get("/admin/conservation")).json()["is_sound"] is False
    backend.conservation = broken  # type: ignore[method-assign]
    found = (await client.get("/admin/conservation")).json()
    workers = {"a": [], "b": ["block 3 has no owner"]}
    assert found == {"is_sound": False, "workers": workers, "unanswered": []}


async def test_a_worker_that_does_not_answer_leaves_it_open_whether_the_fleet_is_sound(
    client: Any, backend: FakeBackend
) -> None:
    async def half() -> Any:
        return {"a": [], "b": None}

    backend.conservation = half  # type: ignore[method-assign]
    found = (await client.get("/admin/conservation")).json()
    assert found == {"is_sound": False, "workers": {"a": []}, "unanswered": ["b"]}


async def metrics_of(client: Any) -> dict[str, Any]:
    text = (await client.get("/metrics")).text
    return {family.name: family for family in text_string_to_metric_families(text)}


async def test_every_named_metric_is_exposed(
    client: Any, backend: FakeBackend, chat: Any, picture: Any, data_url: Any
) -> None:
    seats = ExpertsView(ranks=2, placement=((0, 1),), digest="d")  # only then there are experts
    moved = TransferCount(
        transport="nixl", kind=Transfer.KV, direction=Direction.IN,
        num_copies=1, num_bytes=2, busy_s=0.5,
    )  # fmt: skip
    load = WorkerLoad(transfers=(moved,))
    backend.put("moe", Role.ALL, expert_tokens=((1, 2),), experts=seats, load=load)
    await client.post(CHAT, json=chat("see", data_url(picture())))
    await client.put("/admin/workers/decode-1/role", json={"role": "prefill"})
    await client.post(CHAT, json={})
    families = await metrics_of(client)
    names = {
        name
        for constant, name in vars(metric_names).items()
        if constant.startswith(("VLLM_", "EPIDOTE_"))
        and not constant.startswith("EPIDOTE_CACHE_")  # with a response cache only
    }
    assert names <= set(families)
    assert all(families[name].samples for name in names)


async def test_only_named_metrics_are_exposed(client: Any, chat: Any) -> None:
    await client.post(CHAT, json=chat())
    names = {v for k, v in vars(metric_names).items() if k.isupper()}
    found = {name.removesuffix("_created") for name in await metrics_of(client)}
    assert found <= names


async def test_the_size_of_requests_is_counted_by_modality(
    client: Any, chat: Any, picture: Any, data_url: Any
) -> None:
    await client.post(CHAT, json=chat("see", data_url(picture()), max_tokens=5))
    text = (await client.get("/metrics")).text
    for name, total in (
        ("epidote_request_media", "1.0"),
        ("epidote_request_output_tokens", "5.0"),
    ):
        labels = '{modality="image",model_name="fake-vl"}'
        assert f"{name}_count{labels} 1.0" in text
        assert f"{name}_sum{labels} {total}" in text
    assert 'epidote_arrivals_total{modality="image",model_name="fake-vl"} 1.0' in text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_is_counted(client: Any, chat: Any, stream: bool) -> None:
    for _ in range(3):
        answer = await client.post(CHAT, json=chat(max_tokens=10, stream=stream))
        assert answer.status_code == 200
    text = (await client.get("/metrics")).text
    for line in (
        'vllm:generation_tokens_total{model_name="fake-vl"} 30.0',
        'vllm:request_success_total{finished_reason="length",model_name="fake-vl"} 3.0',
        'vllm:time_to_first_token_seconds_count{model_name="fake-vl"} 3.0',
        'vllm:inter_token_latency_seconds_count{model_name="fake-vl"} 27.0',
        'vllm:e2e_request_latency_seconds_count{model_name="fake-vl"} 3.0',
        'epidote_ttft_seconds_count{modality="text",model_name="fake-vl"} 3.0',
        'epidote_requests_total{endpoint="/v1/chat/completions",status="200"} 3.0',
        'epidote_stage_busy_seconds_count{stage="decode"} 3.0',
        "epidote_requests_in_flight 0.0",
        'vllm:cache_config_info{block_size="16",model_name="fake-vl",num_gpu_blocks="7000"} 1.0',
        'epidote_workers{role="decode",state="routable"} 3.0',
    ):
        assert line in text, line


async def test_labels_stay_bounded_whatever_is_asked(client: Any) -> None:
    for number in range(20):
        await client.get(f"/v1/path-{number}")
        await client.get(f"/admin/path-{number}")
    families = await metrics_of(client)
    endpoints = {s.labels["endpoint"] for s in families["epidote_requests"].samples}
    assert endpoints <= {"other", "/admin", "/metrics"}


async def test_fleet_gauges_are_sums(client: Any, backend: FakeBackend) -> None:
    load = WorkerLoad(
        num_running=2, num_waiting=1, num_kv_blocks=100, num_free_kv_blocks=25, prefix_hit_tokens=7
    )
    backend.fleet.clear()
    for number in range(2):
        backend.put(f"d{number}", Role.DECODE, load=load)
    text = (await client.get("/metrics")).text
    for line in (
        'vllm:num_requests_running{model_name="fake-vl"} 4.0',
        'vllm:num_requests_waiting{model_name="fake-vl"} 2.0',
        'vllm:kv_cache_usage_perc{model_name="fake-vl"} 0.75',
        'vllm:prefix_cache_hits_total{model_name="fake-vl"} 14.0',
        'epidote_kv_blocks{role="decode",state="used"} 150.0',
        'epidote_worker_running_sequences{role="decode"} 4.0',
    ):
        assert line in text, line


async def test_the_fullest_decoder_is_what_alerts_see(client: Any, backend: FakeBackend) -> None:
    empty = WorkerLoad(num_kv_blocks=100, num_free_kv_blocks=100)
    full = WorkerLoad(num_kv_blocks=100, num_free_kv_blocks=2)
    backend.fleet.clear()
    for name, role, load in (
        ("p", Role.PREFILL, full), ("d0", Role.DECODE, empty), ("d1", Role.DECODE, empty),
    ):  # fmt: skip
        backend.put(name, role, load=load)
    usage = 'vllm:kv_cache_usage_perc{model_name="fake-vl"}'
    assert f"{usage} 0.0" in (await client.get("/metrics")).text
    backend.put("d1", Role.DECODE, load=full)
    assert f"{usage} 0.98" in (await client.get("/metrics")).text


async def until_in_metrics(client: Any, line: str) -> None:
    async with asyncio.timeout(60):
        while line not in (text := (await client.get("/metrics")).text):
            await asyncio.sleep(0.01)
    del text


@pytest.mark.parametrize("stream", [True, False])
async def test_tokens_count_while_they_come_and_when_nobody_waits_for_the_rest(
    client: Any, chat: Any, backend: FakeBackend, stream: bool
) -> None:
    backend.delay_s = 0.01
    asked = asyncio.create_task(client.post(CHAT, json=chat(max_tokens=4000, stream=stream)))
    model = '{model_name="fake-vl"}'
    await until_in_metrics(client, f"vllm:generation_tokens_total{model}")
    text = (await client.get("/metrics")).text
    assert f"vllm:time_to_first_token_seconds_count{model} 1.0" in text
    assert f"vllm:prompt_tokens_total{model} 21.0" in text
    assert "vllm:e2e_request_latency_seconds_count" not in text
    asked.cancel()
    aborted = 'vllm:request_success_total{finished_reason="abort",model_name="fake-vl"} 1.0'
    await until_in_metrics(client, aborted)
    assert "vllm:e2e_request_latency_seconds_count" not in (await client.get("/metrics")).text


async def test_a_stream_that_ends_in_an_error_counts_as_one(
    make_client: Any, chat: Any, backend: FakeBackend
) -> None:
    client = make_client(max_resumes=0)
    backend.die_after = {f"decode-{number}": 3 for number in range(3)}
    response = await client.post(CHAT, json=chat(stream=True))
    assert response.status_code == 200
    assert '"error"' in response.text
    text = (await client.get("/metrics")).text
    for line in (
        'epidote_requests_total{endpoint="/v1/chat/completions",status="503"} 1.0',
        'epidote_request_errors_total{code="no_worker_available"} 1.0',
        'vllm:request_success_total{finished_reason="error",model_name="fake-vl"} 1.0',
    ):
        assert line in text, line
    assert '"/v1/chat/completions",status="200"' not in text


async def test_one_model_is_shown_by_its_name(make_client: Any) -> None:
    client = make_client(served_model_names=("org/alias",))
    for name in ("fake-vl", "org/alias"):
        shown = (await client.get(f"/v1/models/{name}")).json()
        assert (shown["id"], shown["object"], shown["root"]) == (name, "model", "fake-vl")
    missing = await client.get("/v1/models/gpt-9")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"
