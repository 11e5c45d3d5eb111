"""This file is about everything a simulated cluster is told, beside its trace and its policy."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from epidote_core.modality import Modality
from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.performance import PerformanceProfile
from epidote_planner.policy import ModalityGroup


class Layout(StrEnum):
    """Which stages a worker's role covers."""

    SPLIT = "encode/prefill/decode"
    TWO_STAGE = "encode+prefill/decode"  # DistServe extended to images: prefill also encodes
    COUPLED = "coupled"  # every worker does everything


@dataclass(frozen=True, kw_only=True)
class SimConfig:
    """The physics and the promises. `profile` is the truth; a policy may believe another one."""

    profile: PerformanceProfile
    slo: Slo
    slo_by_modality: Mapping[Modality, Slo] = field(default_factory=dict)
    layout: Layout = Layout.SPLIT
    initial: Mapping[Lane, int] = field(default_factory=dict)
    groups: tuple[ModalityGroup, ...] = (
        ModalityGroup(name=DEFAULT_GROUP, modalities=tuple(Modality)),
    )
    tick_s: float = 10.0
    warmup_s: float = 0.0  # requests that arrive earlier are served, not judged
    prefix_blocks: int = 0  # per worker that prefills; 0: no prefix cache
    block_tokens: int = 512
    encoder_cache_images: int = 0  # of the whole fleet
    answer_ttl_s: float = 0.0  # response cache; 0: none
    answer_s: float = 0.005  # time of a hit
    failed_starts: int = 0  # so many first starts never come up
    imbalance: tuple[tuple[float, float, float], ...] = ()  # (time, expert imbalance, time ratio)
    seed: int = 0

    def slo_for(self, modality: Modality) -> Slo:
        return self.slo_by_modality.get(modality, self.slo)


def split(encode: int, prefill: int, decode: int) -> dict[Lane, int]:
    """An initial fleet in the default group, such as 5E1P2D."""
    return {
        Lane(DEFAULT_GROUP, Role.ENCODE): encode,
        Lane(DEFAULT_GROUP, Role.PREFILL): prefill,
        Lane(DEFAULT_GROUP, Role.DECODE): decode,
    }


def coupled(workers: int) -> dict[Lane, int]:
    """An initial fleet without roles."""
    return {Lane(DEFAULT_GROUP, Role.ALL): workers}
