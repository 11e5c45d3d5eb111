"""This file is about what one look at a service finds, whoever looks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_operator.observe.window import Traffic
from epidote_operator.status.experts import ExpertsPlaced
from epidote_operator.status.fleet import Fleet
from epidote_planner.experts import ExpertLoad
from epidote_planner.snapshot import RoleSignals


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What one look found. `signals` are the queues by role, of gateways or of Prometheus.

    `experts`: of a model that has some, once two looks have counted what they did.
    `experts_placed`: where they lie, on workers that hold whole ones.
    """

    fleet: Fleet
    traffic: Traffic
    signals: Mapping[Role, RoleSignals]
    experts: ExpertLoad | None = None
    experts_placed: ExpertsPlaced | None = None


class Observer(Protocol):
    """Looks at one service. Never raises for what is missing: that is part of the answer."""

    async def look(self, slos: Mapping[Modality, Slo], now_s: float) -> Observation: ...
