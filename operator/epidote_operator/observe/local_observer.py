"""This file is about looking at a local `epidote serve`."""

import asyncio
from collections.abc import Mapping

from epidote_core.errors import EpidoteError
from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_operator.observe.experts import TIME_RATIO, ExpertWatch
from epidote_operator.observe.gateway_client import GatewayClient
from epidote_operator.observe.local_fleet import LocalFleet
from epidote_operator.observe.observation import Observation
from epidote_operator.observe.signals import role_signals
from epidote_operator.observe.window import MetricsWindow
from epidote_operator.status.fleet import Fleet, SwitchIntent


class LocalObserver:
    """An `Observer` of one gateway; `intents` are those of the local hands, live."""

    def __init__(
        self,
        gateway: GatewayClient,
        intents: Mapping[str, SwitchIntent],
        *,
        expert_time_ratio: float = TIME_RATIO,
    ) -> None:
        self._gateway, self._intents = gateway, intents
        self._expert_time_ratio = expert_time_ratio
        self._fleet, self._window = LocalFleet(), MetricsWindow()
        self._experts = ExpertWatch()

    async def look(self, slos: Mapping[Modality, Slo], now_s: float) -> Observation:
        try:
            report, scrape = await asyncio.gather(
                self._gateway.fleet(now_s), self._gateway.scrape(now_s)
            )
        except EpidoteError as error:
            fleet = Fleet(at_s=now_s, is_known=False, message=str(error))
            return Observation(fleet=fleet, traffic=self._window.read(slos, now_s), signals={})
        experts = await self._experts.look(
            self._gateway, report, now_s, time_ratio=self._expert_time_ratio
        )
        self._window.add({self._gateway.url: scrape}, now_s)
        return Observation(
            fleet=self._fleet.fleet(report, self._intents),
            traffic=self._window.read(slos, now_s),
            signals=role_signals(report),
            experts=experts.load,
            experts_placed=experts.placed,
        )
