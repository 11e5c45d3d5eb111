"""The demo sample on a real cluster: head, workers with the demo model and a gateway, in pods."""

import asyncio
import base64
from random import Random
from typing import Any

import openai
import pytest

from epidote_loadgen.pictures import ImageFormat, draw, encode, sample_scene
from epidote_loadgen.questions import QuestionType, ask
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.testing.client_traffic import traffic
from epidote_operator.testing.cluster import LocalCluster
from epidote_operator.testing.demo import processes_of
from epidote_operator.testing.service_story import (
    REAL_PATIENCE_S,
    OperatorLife,
    change_service,
    demo_sample,
    service_of_its_own,
    settled,
    until_true,
)

pytest.importorskip("ray")
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("cluster"),
]


def fleet() -> Manifest:
    """The sample, with as many workers as a switch needs, and no more than two cores carry."""
    document = demo_sample("demo", 4, dwellSeconds=0, switchCooldownSeconds=0)
    document["spec"]["roles"] = [{"name": "Decode", "minWorkers": 2}]
    return document


async def right_answers(url: str, model: str, count: int) -> int:
    """How many questions about freshly drawn pictures are answered right."""
    rng, right = Random(3), 0
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", timeout=120.0) as client:
        for _ in range(count):
            scene = sample_scene(rng, min_items=2, max_items=3)
            question = ask(QuestionType.COUNT, [scene], rng)
            assert question is not None
            png = base64.b64encode(encode(draw(scene), ImageFormat.PNG)).decode()
            picture = f"data:image/png;base64,{png}"
            messages: Any = [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": picture}},
                        {"type": "text", "text": question.text},
                    ],
                }
            ]
            answer = await client.chat.completions.create(
                model=model, messages=messages, temperature=0, max_tokens=8
            )
            right += (answer.choices[0].message.content or "").strip() == question.answer
    return right


async def test_the_demo_sample_serves_switches_a_role_and_leaves_nothing_behind(
    cluster: LocalCluster, api: KubeApi
) -> None:
    async with service_of_its_own(api, fleet()) as name:
        await serves_and_switches(cluster, api, name)

    async def no_process() -> bool:
        return not processes_of(cluster, name)

    await until_true(no_process, "no process of the fleet is left")


async def serves_and_switches(cluster: LocalCluster, api: KubeApi, name: str) -> None:
    operator = OperatorLife(api, name)
    await operator.until(settled(1, 1, 2), "the fleet serves", patience_s=REAL_PATIENCE_S)
    (url,) = operator.state.memory.gateways.all
    assert await right_answers(url, name, 4) >= 3, "the demo model counts well, not perfectly"
    assert processes_of(cluster, name), "they run as this cluster's pods"
    async with traffic(lambda: url, model=name) as tally:
        roles = [{"name": "Encode", "minWorkers": 2}, {"name": "Decode", "maxWorkers": 1}]
        await change_service(api, name, {"roles": roles})
        status = await operator.until(
            settled(2, 1, 1), "a worker switched", patience_s=REAL_PATIENCE_S
        )
        before = tally.num_ok
        async with asyncio.timeout(REAL_PATIENCE_S):
            while tally.num_ok < before + 4:
                await asyncio.sleep(0.1)
    assert tally.failures == []
    assert any("decode→" in action for d in status.decisions for action in d.actions)
    await operator.end()
