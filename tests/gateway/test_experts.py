"""What experts computed and where they lie, as operators and Prometheus see it."""

from typing import Any

import pytest

from epidote_core.expert_placement import Placement, placement_digest
from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import ExpertsView
from epidote_gateway.expert_endpoints import MAX_PLACEMENT_BYTES
from epidote_gateway.fakes import FakeBackend

ONE, OTHER = ((1, 2, 3), (4, 5, 6)), ((10, 0, 0), (0, 10, 0))
PLACED: Placement = ((0, 1, 2, 0), (0, 1, 2, 0))
WANTED: Placement = ((0, 2, 1, 0), (0, 1, 2, 1))


def seats(placement: Placement = PLACED, **given: Any) -> ExpertsView:
    return ExpertsView(ranks=2, placement=placement, digest=placement_digest(placement), **given)


async def test_experts_are_summed_over_the_workers_that_live(
    client: Any, backend: FakeBackend
) -> None:
    backend.put("a", Role.ALL, expert_tokens=ONE)
    backend.put("b", Role.DECODE, expert_tokens=OTHER)
    backend.put("gone", Role.DECODE, state=WorkerState.FAILED, expert_tokens=OTHER)
    answer = (await client.get("/admin/experts")).json()
    assert answer["tokens"] == [[11, 2, 3], [4, 15, 6]]
    assert (answer["workers"], answer["placements"], answer["is_moving"]) == ([], {}, False)
    assert (await client.get("/admin/fleet")).json()["num_experts"] == 3
    metrics = (await client.get("/metrics")).text
    for number, total in enumerate((25.0, 27.0, 9.0)):  # counters keep what is gone
        assert f'epidote_expert_tokens_total{{expert="{number}"}} {total}' in metrics
    assert "epidote_expert_imbalance" not in metrics  # nobody holds whole experts


async def test_a_model_without_experts_has_no_series_and_an_empty_table(client: Any) -> None:
    assert (await client.get("/admin/experts")).json()["tokens"] == []
    assert (await client.get("/admin/fleet")).json()["num_experts"] == 0
    assert "epidote_expert_tokens" not in (await client.get("/metrics")).text


async def test_placements_in_force_and_moves_under_way_are_shown(
    client: Any, backend: FakeBackend
) -> None:
    target = placement_digest(WANTED)
    backend.put("a", Role.ALL, expert_tokens=ONE, experts=seats(target=target))
    backend.put("b", Role.ALL, expert_tokens=ONE, experts=seats(WANTED, target=target, num_moves=1))
    answer = (await client.get("/admin/experts")).json()
    assert answer["is_moving"]
    assert [w["is_moving"] for w in answer["workers"]] == [True, False]
    assert answer["placements"] == {
        placement_digest(PLACED): [list(layer) for layer in PLACED],
        target: [list(layer) for layer in WANTED],
    }
    # twice ((1, 2, 3), (4, 5, 6)) on ranks (0, 1 | 2, 0): (5, 7) and (14, 16), of 12 and 30
    assert answer["workers"][0]["imbalance"] == pytest.approx((7 + 16) / 21)
    metrics = (await client.get("/metrics")).text
    assert "epidote_expert_moves_total 1.0" in metrics
    worst = max(worker["imbalance"] for worker in answer["workers"])
    assert f"epidote_expert_imbalance_ratio {worst}" in metrics


async def test_an_order_reaches_every_worker_with_slots_and_again_changes_nothing(
    client: Any, backend: FakeBackend
) -> None:
    backend.put("a", Role.ALL, experts=seats())
    backend.put("b", Role.ALL, experts=seats())
    for _ in range(2):
        answer = await client.put("/admin/experts", json={"placement": WANTED})
        assert answer.status_code == 202
        assert answer.json() == {"placement": placement_digest(WANTED), "num_workers": 2}
    told = {worker.experts.target for worker in backend.workers() if worker.experts is not None}
    assert told == {placement_digest(WANTED)}


@pytest.mark.parametrize(
    ("placement", "field"),
    [
        (WANTED[:1], "placement"),
        (((0, 1, 2), (0, 1, 2, 0)), "placement[0]"),
        (((0, 1, 2, 3), (0, 1, 2, 0)), "placement[0][3]"),
        (((0, 1, 2, -1), (0, 1, 2, 0)), "placement[0][3]"),
        (((0, 1, 2, 0), (0, 1, 1, 0)), "placement[1]"),
        (((0, 1, 2, 0), (0, 1, "2", 0)), "placement[1][2]"),
    ],
)
async def test_a_placement_that_cannot_be_is_refused_by_its_field(
    client: Any, backend: FakeBackend, placement: Any, field: str
) -> None:
    backend.put("a", Role.ALL, experts=seats())
    answer = await client.put("/admin/experts", json={"placement": placement})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith(field)
    assert all(w.experts is None or not w.experts.target for w in backend.workers())


async def test_experts_that_are_cut_different_or_not_there_cannot_be_moved(
    client: Any, backend: FakeBackend
) -> None:
    async def refusal() -> tuple[int, str]:
        answer = await client.put("/admin/experts", json={"placement": WANTED})
        return answer.status_code, answer.json()["error"]["code"]

    assert await refusal() == (404, "no_experts")
    backend.put("a", Role.ALL, expert_tokens=ONE)
    assert await refusal() == (409, "no_expert_parallelism")
    backend.put("b", Role.ALL, experts=seats())
    backend.put("c", Role.ALL, experts=seats(((0, 1, 2, 0, 1, 2),) * 2))
    assert await refusal() == (409, "workers_differ")


async def test_a_placement_has_a_limit_and_an_administrators_key(
    make_client: Any, backend: FakeBackend
) -> None:
    backend.put("a", Role.ALL, experts=seats())
    guarded = make_client(admin_key="admin")
    assert (await guarded.put("/admin/experts", json={"placement": WANTED})).status_code in (
        401,
        403,
    )
    headers = {"Authorization": "Bearer admin", "Content-Type": "application/json"}
    told = await guarded.put("/admin/experts", json={"placement": WANTED}, headers=headers)
    assert told.status_code == 202
    large = b" " * (MAX_PLACEMENT_BYTES + 1)
    assert (await guarded.put("/admin/experts", content=large, headers=headers)).status_code == 413
