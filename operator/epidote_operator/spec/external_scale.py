"""This file is about a pool whose number of workers somebody else gives: `/scale`, an HPA, KEDA.

They ask for what they like. As a HorizontalPodAutoscaler does with its own bounds, the number is
taken into those of the pool and its roles, and the condition ScalingLimited says so.
"""

from dataclasses import dataclass

from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.role_rules import splits_range
from epidote_operator.spec.scaling import ScalingOwner
from epidote_operator.spec.splits import Range


@dataclass(frozen=True, kw_only=True)
class ExternalScale:
    """Workers that were asked for, and those that may be had."""

    asked: int
    permitted: Range

    @property
    def granted(self) -> int:
        """
        >>> ExternalScale(asked=50, permitted=Range(least=3, most=8)).granted
        8
        """
        return min(max(self.asked, self.permitted.least), self.permitted.most)

    @property
    def limit(self) -> tuple[str, str] | None:
        """Reason and message of ScalingLimited; None: what was asked for is granted."""
        if self.asked == self.granted:
            return None
        told = (
            f"pool.workers asks for {self.asked} workers, between {self.permitted.least} and "
            f"{self.permitted.most} are permitted by the pool, its GPU budget and its roles: "
            f"{self.granted} are wanted"
        )
        return ("TooManyReplicas" if self.asked > self.granted else "TooFewReplicas"), told


def external_scale(spec: MultimodalServiceSpec) -> ExternalScale | None:
    """Of a valid spec; None: the number is the operator's, or nobody has asked for one yet."""
    pool = spec.pool
    if spec.scaling.owner is not ScalingOwner.EXTERNAL or pool.workers is None:
        return None
    roles = splits_range(spec)
    least = max(pool.min_workers, roles.least)
    return ExternalScale(
        asked=pool.workers, permitted=Range(least=least, most=min(pool.most, roles.most))
    )
