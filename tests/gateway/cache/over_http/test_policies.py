"""Policies and pressure that reach a running gateway."""

import asyncio
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from epidote_gateway.cache.fakes import WordMeaning
from epidote_gateway.cache.meaning.model_files import model_directory
from epidote_gateway.cache.policy_file import WATCH_S

A, C = "what colour is the car in this picture", "what colour has the car in this picture"


async def test_a_changed_policy_file_is_in_force_within_five_seconds(
    gateway: Any,
    policy_text: str,
    openai: AsyncOpenAI,
    http: httpx.AsyncClient,
    ask: Any,
    about: Any,
) -> None:
    await ask(openai, about(A))
    assert WATCH_S <= 2.0  # two looks, and making the judges
    gateway.policy.write_text(policy_text.replace("0.7", "0.999"))
    async with asyncio.timeout(60):  # a busy machine; an idle one takes one second
        while True:
            stats = (await http.get("/admin/cache")).json()
            if stats["categories"]["default"]["threshold"] == 0.999:
                break
            await asyncio.sleep(0.05)
    assert (await ask(openai, about(C)))[1].startswith("miss; why=below-threshold")
    assert (await ask(openai, about(A)))[1].startswith("hit; kind=exact")


async def test_a_policy_may_be_put_and_a_bad_one_is_refused_by_field(
    gateway: Any, openai: AsyncOpenAI, http: httpx.AsyncClient, ask: Any, about: Any
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
    gateway: Any, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, body: Any, param: str
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
    gateway: Any, http: httpx.AsyncClient
) -> None:
    assert (await http.put("/admin/cache/pressure", json={"pressure": 0.5})).status_code == 200
    assert (await http.get("/admin/cache")).json()["signal"] == 0.5
    assert (await http.put("/admin/cache/pressure", json={"pressure": 2})).status_code == 400
