"""What experts computed, as operators and Prometheus see it."""

from typing import Any

from epidote_core.roles import Role, WorkerState
from epidote_gateway.fakes import FakeBackend

ONE, OTHER = ((1, 2, 3), (4, 5, 6)), ((10, 0, 0), (0, 10, 0))


async def test_experts_are_summed_over_the_workers_that_live(
    client: Any, backend: FakeBackend
) -> None:
    backend.put("a", Role.ALL, expert_tokens=ONE)
    backend.put("b", Role.DECODE, expert_tokens=OTHER)
    backend.put("gone", Role.DECODE, state=WorkerState.FAILED, expert_tokens=OTHER)
    answer = await client.get("/admin/experts")
    assert answer.json() == {"tokens": [[11, 2, 3], [4, 15, 6]]}
    assert (await client.get("/admin/fleet")).json()["num_experts"] == 3
    metrics = (await client.get("/metrics")).text
    for number, total in enumerate((15.0, 17.0, 9.0)):
        assert f'epidote_expert_tokens_total{{expert="{number}"}} {total}' in metrics


async def test_a_model_without_experts_has_no_series_and_an_empty_table(client: Any) -> None:
    assert (await client.get("/admin/experts")).json() == {"tokens": []}
    assert (await client.get("/admin/fleet")).json()["num_experts"] == 0
    assert "epidote_expert_tokens" not in (await client.get("/metrics")).text
