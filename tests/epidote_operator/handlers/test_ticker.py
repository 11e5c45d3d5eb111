"""Ticks that fail are told in the status, once they do so in a row."""

import asyncio
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_operator.handlers.ticker import TOLD_FAILURE, Ticker
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

    async def failure(self, resource: Any, state: Any, error: Exception, now_s: float) -> None:
        self.told.append(str(error))
        self.is_told.set()
        raise EpidoteError("nor could this be written")


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
