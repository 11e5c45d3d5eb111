"""What `/metrics` says the fleet has counted, while workers end, come back and start anew."""

from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from epidote_core.expert_placement import placement_digest
from epidote_core.roles import Role, WorkerState
from epidote_core.transfer_count import Direction, Transfer, TransferCount
from epidote_core.worker_view import ExpertsView, WorkerLoad
from epidote_gateway.fakes import FakeBackend

PLACED = ((0, 1),)
TOTALS = (
    "vllm:prefix_cache_queries_total",
    "vllm:prefix_cache_hits_total",
    "vllm:num_preemptions_total",
    "epidote_transfer_bytes_total",
    "epidote_transfer_seconds_total",
    "epidote_transfer_copies_total",
    "epidote_expert_tokens_total",
    "epidote_expert_moves_total",
)


def put(backend: FakeBackend, worker_id: str, times: int) -> None:
    """A worker that has counted something of everything, `times` as much as another."""
    moved = TransferCount(
        transport="nixl",
        kind=Transfer.KV,
        direction=Direction.IN,
        num_copies=times,
        num_bytes=100 * times,
        busy_s=0.25 * times,
    )
    load = WorkerLoad(
        num_preemptions=times,
        prefix_hit_tokens=3 * times,
        prefix_query_tokens=9 * times,
        transfers=(moved,),
    )
    seats = ExpertsView(ranks=2, placement=PLACED, digest=placement_digest(PLACED), num_moves=times)
    tokens = ((10 * times, 20 * times),)
    backend.put(worker_id, Role.DECODE, load=load, expert_tokens=tokens, experts=seats)


async def totals(client: Any) -> dict[str, float]:
    """By name and labels."""
    text = (await client.get("/metrics")).text
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name in TOTALS
    }


@pytest.fixture
async def unit(client: Any, backend: FakeBackend) -> dict[str, float]:
    """What one time of everything is; the worker that counted it has ended."""
    put(backend, "unit", 1)
    found = await totals(client)
    backend.kill("unit")
    assert len(found) == len(TOTALS) + 1, "two experts"
    assert all(value > 0 for value in found.values())
    return found


def times(unit: dict[str, float], number: int) -> dict[str, float]:
    return {name: number * value for name, value in unit.items()}


async def test_counters_stay_when_workers_end(
    client: Any, backend: FakeBackend, unit: dict[str, float]
) -> None:
    put(backend, "v", 4)
    put(backend, "w", 2)
    assert await totals(client) == times(unit, 1 + 4 + 2)
    backend.kill("v")
    put(backend, "w", 3)
    assert await totals(client) == times(unit, 1 + 4 + 3)
    backend.fleet["w"] = replace(backend.fleet["w"], state=WorkerState.FAILED)
    assert await totals(client) == times(unit, 8)
    backend.fleet.clear()
    assert await totals(client) == times(unit, 8)


async def test_a_worker_that_is_lost_from_view_is_not_counted_twice(
    client: Any, backend: FakeBackend, unit: dict[str, float]
) -> None:
    put(backend, "v", 4)
    await totals(client)
    backend.kill("v")
    await totals(client)
    backend.put("v", Role.DECODE, state=WorkerState.STARTING, load=WorkerLoad())  # not connected
    assert await totals(client) == times(unit, 5)
    put(backend, "v", 3)  # as others told of it, some time ago
    backend.fleet["v"] = replace(backend.fleet["v"], state=WorkerState.STARTING)
    assert await totals(client) == times(unit, 5)
    put(backend, "v", 6)
    assert await totals(client) == times(unit, 7)


async def test_a_worker_that_starts_anew_under_its_name_adds_to_its_old_figures(
    client: Any, backend: FakeBackend, unit: dict[str, float]
) -> None:
    put(backend, "v", 5)
    await totals(client)
    put(backend, "v", 2)
    assert await totals(client) == times(unit, 1 + 5 + 2)
    put(backend, "v", 3)
    assert await totals(client) == times(unit, 1 + 5 + 3)


async def test_weights_that_are_loaded_again_restart_the_experts_figures_alone(
    client: Any, backend: FakeBackend, unit: dict[str, float]
) -> None:
    put(backend, "v", 4)
    await totals(client)
    backend.fleet["v"] = replace(backend.fleet["v"], expert_tokens=((10, 20),))
    found = await totals(client)
    for name, value in times(unit, 5).items():
        assert found[name] == value + (unit[name] if "expert_tokens" in name else 0)
