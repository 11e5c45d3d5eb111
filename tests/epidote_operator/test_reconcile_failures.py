"""Ticks that fail, and Events that are refused: what the status says all the same."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from epidote_operator.kube.errors import ApiRefused
from epidote_operator.testing.ticked_service import NAME, NUM_WORKERS, TickedService, ticked_service


@pytest.fixture
async def service() -> AsyncIterator[TickedService]:
    async with ticked_service() as made:
        yield made


async def test_a_status_is_written_though_events_are_refused(service: TickedService) -> None:
    service.api.refuses_events = True
    assert "merge status" in await service.tick()
    assert service.resource["status"]["readyWorkers"] == NUM_WORKERS
    lost = service.reconciler.metrics.events_lost.labels("default", NAME)
    assert lost._value.get() == 1.0, "the decision"


async def test_a_tick_that_fails_says_so_in_the_status_until_one_succeeds(
    service: TickedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    await service.settle()

    def able() -> tuple[str, str]:
        found = service.resource["status"]["conditions"]
        (able,) = [c for c in found if c["type"] == "AbleToScale"]
        return able["reason"], able["message"]

    error = ApiRefused("PATCH services: 403 Forbidden", status=403, reason="Forbidden")
    service.api.writes.clear()
    merged = await service.api.merge("x", {})
    merged_bodies: list[dict[str, Any]] = []

    async def merge(path: str, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        merged_bodies.append(body)
        return merged

    with monkeypatch.context() as patched:
        patched.setattr(service.api, "merge", merge)
        await service.reconciler.teller.failure(
            service.resource, service.state, error, service.now_s
        )
    (body,) = merged_bodies
    service.resource["status"] |= body["status"]
    service.state.latest = None
    assert able() == (
        "FailedTick",
        "nothing was decided or done: PATCH services: 403 Forbidden",
    )
    assert "create events" in service.api.writes
    assert "merge status" in await service.tick()
    assert able()[0] in ("ReadyForNewScale", "ScaleDownStabilized")


async def told_of_a_failure(
    service: TickedService, *, is_lasting: bool
) -> dict[str, tuple[str, str]]:
    """(status, reason) of conditions after ticks that failed."""
    error = ApiRefused("GET pods: 403 Forbidden", status=403, reason="Forbidden")
    state = service.state
    shown: list[Any] = []
    service.api.merge, kept = lambda path, body: taken(body), service.api.merge  # type: ignore

    async def taken(body: dict[str, Any]) -> dict[str, Any]:
        shown.append(body["status"])
        return await kept("status", body)

    await service.reconciler.teller.failure(
        service.resource, state, error, service.now_s, is_lasting=is_lasting
    )
    service.api.merge = kept  # type: ignore[method-assign]
    state.latest = None
    return {item["type"]: (item["status"], item["reason"]) for item in shown[0]["conditions"]}


async def test_ready_is_unknown_when_ticks_fail_for_long_or_none_ever_succeeded(
    service: TickedService,
) -> None:
    found = await told_of_a_failure(service, is_lasting=False)
    assert found["Ready"] == ("Unknown", "FailedTick"), "a new one never had any"
    await service.settle()
    found = await told_of_a_failure(service, is_lasting=False)
    assert found["Ready"] == ("True", "EveryStageServed"), "the next tick may succeed"
    assert found["AbleToScale"] == ("False", "FailedTick")
    found = await told_of_a_failure(service, is_lasting=True)
    assert found["Ready"] == ("Unknown", "FailedTick")
