"""Ticks that fail are told in the status, once they do so in a row."""

import asyncio
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.handlers.health import Health
from epidote_operator.handlers.ticker import LASTING_FAILURE, TOLD_FAILURE, Ticker
from epidote_operator.kube.errors import ApiRefused
from epidote_operator.telemetry import OperatorMetrics

RESOURCE = {"metadata": {"name": "chat", "namespace": "prod", "generation": 1}, "spec": {}}


@dataclass
class FailingReconciler:
    """Fails at every tick; `told` is set with the failures of which the status heard."""

    metrics: OperatorMetrics = field(default_factory=OperatorMetrics)
    num_ticks: int = 0
    told: list[str] = field(default_factory=list)
    is_told: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def teller(self) -> "FailingReconciler":
        return self

    async def reconcile(self, *_: Any) -> None:
        self.num_ticks += 1
        raise EpidoteError(f"tick {self.num_ticks} failed")

    untold: EpidoteError = field(default_factory=lambda: EpidoteError("could not be written"))
    lasting: list[bool] = field(default_factory=list)

    async def failure(
        self, resource: Any, state: Any, error: Exception, now_s: float, *, is_lasting: bool
    ) -> None:
        self.told.append(str(error))
        self.lasting.append(is_lasting)
        self.is_told.set()
        raise self.untold


async def test_without_rights_the_operator_is_not_ready_until_a_tick_succeeds() -> None:
    """Statuses that can't be written stay as they were: the operator's own pods must tell."""
    refused = ApiRefused("PATCH status: 403 Forbidden", status=403, reason="Forbidden")
    reconciler: Any = FailingReconciler(untold=refused)
    hours, services = count(0, 3600), [(("prod", "chat"), RESOURCE)]

    async def is_caught_up(_: Any) -> bool:
        return True

    ticker = Ticker(
        reconciler=reconciler,
        services=lambda: services,
        leader=None,
        clock=lambda: float(next(hours)),
        is_caught_up=is_caught_up,
    )
    health = Health(lambda: 0.0, is_ready=lambda: True, tick_trouble=lambda: ticker.trouble)
    assert health.unready() == ""

    async def succeeds(*_: Any) -> None:
        return

    running = asyncio.create_task(ticker.run())
    async with asyncio.timeout(60.0):
        while len(reconciler.told) < LASTING_FAILURE:
            await asyncio.sleep(0.05)
        while not ticker.trouble:
            await asyncio.sleep(0.05)
        assert health.unready() == "PATCH status: 403 Forbidden"
        assert health.stalled() == "", "another start helps nobody"
        assert reconciler.lasting.index(True) == LASTING_FAILURE - TOLD_FAILURE
        reconciler.reconcile = succeeds
        while ticker.trouble:
            await asyncio.sleep(0.05)
    assert health.unready() == ""
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_the_second_failure_in_a_row_is_told_and_telling_may_fail() -> None:
    hours = count(0, 3600)

    async def is_caught_up(_: Any) -> bool:
        return True

    reconciler: Any = FailingReconciler()
    ticker = Ticker(
        reconciler=reconciler,
        services=lambda: [(("prod", "chat"), RESOURCE)],
        leader=None,
        clock=lambda: float(next(hours)),
        is_caught_up=is_caught_up,
    )
    running = asyncio.create_task(ticker.run())
    async with asyncio.timeout(60.0):
        await reconciler.is_told.wait()
        while reconciler.num_ticks <= TOLD_FAILURE:
            await asyncio.sleep(0.05)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert reconciler.told[0] == f"tick {TOLD_FAILURE} failed"
