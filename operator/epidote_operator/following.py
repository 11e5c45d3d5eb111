"""This file is about which spec a service follows: the present one, or the last valid one.

A number of workers that `kubectl scale` wrote although it is the operator's is no reason to refuse
the rest, nor to stop following changes: it is ignored, and said to be.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epidote_operator.kube.api import Manifest
from epidote_operator.spec.changes import refused_changes
from epidote_operator.spec.external_scale import external_scale
from epidote_operator.spec.invalid import InvalidSpec, Problem
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.parsing import parse_service
from epidote_operator.spec.scaling import ScalingOwner
from epidote_operator.spec.service_status import MultimodalServiceStatus
from epidote_operator.status.news import TWO_OWNERS

OPERATOR = ScalingOwner.OPERATOR.value


@dataclass(frozen=True, kw_only=True)
class Followed:
    """`spec` None: there is no valid one, nothing can be done. `raw`: what it was read from."""

    spec: MultimodalServiceSpec | None
    raw: Mapping[str, Any]
    refusal: InvalidSpec | None = None  # why it is not the present one
    ignored_workers: int | None = None  # asked for by somebody whose business it is not

    @property
    def scale_limit(self) -> tuple[str, str] | None:
        """Reason and message of ScalingLimited; None: nobody asked for a number in vain."""
        if self.ignored_workers is not None:
            return TWO_OWNERS, (
                f"pool.workers asks for {self.ignored_workers} workers and is ignored, since "
                "scaling.owner is Operator: the number follows the SLO. Set scaling.owner to "
                "External to give it to kubectl scale, an HPA or KEDA, or take pool.workers out"
            )
        scale = None if self.spec is None else external_scale(self.spec)
        return None if scale is None else scale.limit


def spec_to_follow(
    resource: Manifest, status: MultimodalServiceStatus, *, kuberay: bool = True
) -> Followed:
    """The present spec if it is valid, name included, else the last good one if it still is.

    One that changes what is fixed is not valid either: nobody may have been asked when it was
    stored. A later operator may refuse what an earlier one let in: then the fleet stays as it is.
    `kuberay`: whether this one may write RayClusters.
    """
    (raw, ignored), last = _of_one_owner(resource["spec"]), status.last_good_spec
    present, refusal = _parsed(raw, kuberay, name=resource["metadata"]["name"])
    before, stale_refusal = (None, None) if last is None else _parsed(last, kuberay)
    if present is not None and before is not None and (fixed := refused_changes(before, present)):
        present, refusal = None, InvalidSpec(fixed)
    if present is not None:
        return Followed(spec=present, raw=raw, ignored_workers=ignored)
    if before is not None and last is not None:
        return Followed(spec=before, raw=last, refusal=refusal)
    stale = [
        Problem(
            path=f"status.lastGoodSpec{item.path.removeprefix('spec')}",
            wanted=item.wanted,
            found=f"{item.found}, so that the fleet stays as it is",
        )
        for item in (() if stale_refusal is None else stale_refusal.problems)
    ]
    problems = () if refusal is None else refusal.problems
    return Followed(spec=None, raw=raw, refusal=InvalidSpec((*problems, *stale)))


def _parsed(
    raw: Mapping[str, Any], kuberay: bool, *, name: str | None = None
) -> tuple[MultimodalServiceSpec | None, InvalidSpec | None]:
    """The spec, or why there is none."""
    try:
        return parse_service(raw, name=name, kuberay=kuberay), None
    except InvalidSpec as error:
        return None, error


def _of_one_owner(raw: Mapping[str, Any]) -> tuple[Mapping[str, Any], int | None]:
    """The spec without a number of workers that is the operator's own, and that number."""
    pool, scaling = raw.get("pool"), raw.get("scaling") or {}
    if not isinstance(pool, Mapping) or not isinstance(scaling, Mapping):
        return raw, None
    asked = pool.get("workers")
    if not isinstance(asked, int) or scaling.get("owner", OPERATOR) != OPERATOR:
        return raw, None
    kept = {name: value for name, value in pool.items() if name != "workers"}
    return {**raw, "pool": kept}, asked
