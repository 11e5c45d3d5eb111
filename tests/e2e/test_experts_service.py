"""`epidote serve --enable-expert-parallel`: experts are moved by HTTP, of later workers as well."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from epidote_core.expert_placement import placement_digest
from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve
from epidote_engine.settings import EngineConfig
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_workers.service_process import serving

pytest.importorskip("ray")

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE_S = 240.0
PROMPTS = [list(range(20, 40)), [7, 7, 9], list(range(50, 90))]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("experts") / "tiny"
    save_tiny_model(path, Architecture.QWEN3_MOE, seed=15)  # seven experts a layer
    return str(path)


@pytest.fixture(scope="module")
def service(model: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    flags = ["--model", model, "--roles", "all=1", "--tensor-parallel-size", "2"]
    flags += ["--enable-expert-parallel", "--num-redundant-experts", "1"]
    flags += ["--device", "cpu", "--dtype", "float32", "--kv-blocks", "64"]
    with (
        serving(*flags, log=tmp_path_factory.mktemp("log") / "stderr.txt") as (_, url),
        httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client,
    ):
        yield client


def seen(client: httpx.Client, good: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """`GET /admin/experts` as soon as it is `good`."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not good(found := client.get("/admin/experts").json()):
        assert time.monotonic() < deadline_s, found
        time.sleep(0.1)
    return dict(found)


def answers(client: httpx.Client, model: str) -> list[str]:
    found = []
    for prompt in PROMPTS:
        body = {"model": model, "prompt": prompt, "temperature": 0, "max_tokens": 12}
        reply = client.post("/v1/completions", json={**body, "ignore_eos": True})
        assert reply.status_code == 200, reply.text
        found.append(str(reply.json()["choices"][0]["text"]))
    return found


def wanted(model: str) -> list[str]:
    """What one engine says that holds the whole model."""
    sampling = SamplingParams(max_tokens=12, temperature=0.0, ignore_eos=True)
    requests = [
        GenerateRequest(request_id=f"{n}", prompt_token_ids=tuple(prompt), sampling=sampling)
        for n, prompt in enumerate(PROMPTS)
    ]
    engine = Engine(EngineConfig(model=model, dtype="float32", num_kv_blocks=64))
    told = serve(engine, requests)
    return [told[request.request_id, 0].text for request in requests]


def test_experts_move_and_a_worker_that_comes_later_has_them_where_the_others_do(
    service: httpx.Client, model: str
) -> None:
    name = service.get("/v1/models").json()["data"][0]["id"]
    first = seen(service, lambda found: len(found["workers"]) == 1)
    (placement,) = first["placements"].values()
    assert [len(slots) for slots in placement] == [8] * len(placement)
    expected = wanted(model)
    assert answers(service, name) == expected

    backwards = [slots[::-1] for slots in placement]
    target = placement_digest(backwards)
    spoilt = [[*backwards[0][:-1], 7], *backwards[1:]]
    assert service.put("/admin/experts", json={"placement": spoilt}).status_code == 400
    told = service.put("/admin/experts", json={"placement": backwards})
    assert (told.status_code, told.json()) == (202, {"placement": target, "num_workers": 1})
    assert answers(service, name) == expected  # on the way
    moved = seen(service, lambda found: found["workers"][0]["placement"] == target)
    assert moved["placements"] == {target: backwards}
    assert not moved["is_moving"]
    assert answers(service, name) == expected
    metrics = service.get("/metrics").text
    assert "epidote_expert_moves_total 1.0" in metrics
    assert "epidote_expert_imbalance_ratio" in metrics

    assert service.post("/admin/scale", json={"num_workers": 2}).status_code == 202
    both = seen(
        service, lambda found: [w["placement"] for w in found["workers"]] == [target, target]
    )
    assert not both["is_moving"]
    assert answers(service, name) == expected
