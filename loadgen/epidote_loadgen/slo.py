"""This file is about what was promised to which requests: objectives for classes of requests.

An objective holds when at least `ratio` of a class's requests meet all of its limits. The usual
catalogue form "TTFT p99 1 s and ITL p99 50 ms" is two objectives of one limit each; goodput in the
sense of DistServe (Zhong et al., OSDI 2024) is one objective with several limits.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from epidote_core.modality import Modality
from epidote_core.slo import Slo
from epidote_loadgen.measures.nearest_rank import nearest_rank
from epidote_loadgen.records import RequestAttributes, RequestRecord

ITL_QUANTILE = 0.99  # of a request's own gaps: one stutter in a hundred tokens is forgiven


@dataclass(frozen=True, kw_only=True)
class Objective:
    """`ratio` of the requests meet every limit given here. Seconds; None: no such limit.

    A request that did not end well meets nothing. A limit that does not apply (TPOT of a single
    token) is met. With `correct` only requests with a known answer count: each must
    be right.
    """

    ttft_s: float | None = None
    tpot_s: float | None = None
    itl_s: float | None = None  # the request's own 99th percentile gap
    e2e_s: float | None = None
    correct: bool = False
    ratio: float = 0.99

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s"):
            limit = getattr(self, name)
            if limit is not None and not (math.isfinite(limit) and limit > 0.0):
                raise ValueError(f"{name}: must be > 0 seconds, got {limit}")
        if not 0.0 < self.ratio < 1.0:
            raise ValueError(f"ratio: must lie inside (0, 1), got {self.ratio}")

    @classmethod
    def of(cls, slo: Slo) -> "Objective":
        """The planner's SLO as one objective with both limits."""
        return cls(ttft_s=slo.ttft_s, tpot_s=slo.tpot_s, ratio=slo.quantile)

    @property
    def name(self) -> str:
        """The limits in words.

        >>> Objective(ttft_s=1.0, itl_s=0.05).name
        'TTFT <= 1000 ms, ITL <= 50 ms'
        """
        limits = [
            f"{label} <= {1000.0 * limit:g} ms"
            for label, limit in (
                ("TTFT", self.ttft_s),
                ("TPOT", self.tpot_s),
                ("ITL", self.itl_s),
                ("E2E", self.e2e_s),
            )
            if limit is not None
        ]
        return ", ".join([*limits, *(["right answer"] if self.correct else [])]) or "served"

    def judges(self, record: RequestRecord) -> bool:
        """Whether this request counts: not one that our own interrupt cut, and with `correct` only
        one whose answer was scored, or would have been had it come."""
        return not record.is_cut and (record.is_for_scoring or not self.correct)

    def met_by(self, record: RequestRecord) -> bool:
        """Whether this request met every limit; ask only of one that it `judges`."""
        return (
            record.ok
            and within(record.ttft_s, self.ttft_s)
            and within(record.tpot_s, self.tpot_s)
            and within(record.e2e_s, self.e2e_s)
            and (self.itl_s is None or within(high_gap_s(record.itl_s), self.itl_s))
            and (not self.correct or record.correct is True)
        )


def within(value: float | None, limit: float | None) -> bool:
    return value is None or limit is None or value <= limit


def high_gap_s(gaps_s: Sequence[float]) -> float | None:
    """The nearest-rank 99th percentile: of fewer than a hundred gaps, the longest.

    >>> high_gap_s([0.1, 0.5, 0.2])
    0.5
    """
    return nearest_rank(gaps_s, ITL_QUANTILE) if gaps_s else None


@dataclass(frozen=True, kw_only=True)
class Match:
    """Which requests a class holds. Empty: any. Ranges are inclusive; None: open."""

    class_names: frozenset[str] = frozenset()
    modalities: frozenset[Modality] = frozenset()
    tenants: frozenset[str] = frozenset()
    categories: frozenset[str] = frozenset()
    min_images: int = 0
    max_images: int | None = None
    min_prompt_tokens: int = 0
    max_prompt_tokens: int | None = None

    def holds(self, class_name: str, attributes: RequestAttributes, prompt_tokens: int) -> bool:
        """`prompt_tokens` is the best count known, 0 where there is none."""
        return (
            (not self.class_names or class_name in self.class_names)
            and (not self.modalities or attributes.modality in self.modalities)
            and (not self.tenants or attributes.tenant in self.tenants)
            and (not self.categories or attributes.category in self.categories)
            and self.min_images <= attributes.num_images
            and (self.max_images is None or attributes.num_images <= self.max_images)
            and self.min_prompt_tokens <= prompt_tokens
            and (self.max_prompt_tokens is None or prompt_tokens <= self.max_prompt_tokens)
        )


@dataclass(frozen=True, kw_only=True)
class SloClass:
    """The objectives of the requests that `match`."""

    name: str
    match: Match = field(default_factory=Match)
    objectives: tuple[Objective, ...]

    def good(self, record: RequestRecord) -> bool | None:
        """Whether it met every objective that judges it; None: none does."""
        judging = [objective for objective in self.objectives if objective.judges(record)]
        return all(objective.met_by(record) for objective in judging) if judging else None


@dataclass(frozen=True, kw_only=True)
class SloTable:
    """All promises; the first class that matches judges a request.

    A request that no class matches is measured and counted, but judged by nobody.
    """

    classes: tuple[SloClass, ...]

    @property
    def num_objectives(self) -> int:
        return sum(len(slo_class.objectives) for slo_class in self.classes)

    def class_of(self, record: RequestRecord) -> SloClass | None:
        # The plan's length decides, so that a request that failed falls into the same class.
        planned = record.attributes.prompt_tokens
        tokens = planned if planned is not None else record.prompt_tokens or 0
        for candidate in self.classes:
            if candidate.match.holds(record.class_name, record.attributes, tokens):
                return candidate
        return None
