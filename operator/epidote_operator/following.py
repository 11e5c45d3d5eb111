"""This file is about which spec a service follows: the present one, or the last valid one."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from epidote_operator.kube.api import Manifest
from epidote_operator.spec.invalid import InvalidSpec, Problem
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.parsing import parse_service
from epidote_operator.spec.service_status import MultimodalServiceStatus


@dataclass(frozen=True, kw_only=True)
class Followed:
    """`spec` None: there is no valid one, nothing can be done. `raw`: as the resource has it."""

    spec: MultimodalServiceSpec | None
    raw: Mapping[str, Any]
    refusal: InvalidSpec | None = None  # why it is not the present one


def spec_to_follow(resource: Manifest, status: MultimodalServiceStatus) -> Followed:
    """The present spec if it is valid, name included, else the last good one if it still is.

    A later operator may refuse what an earlier one let in: then the fleet stays as it is.
    """
    raw, last = resource["spec"], status.last_good_spec
    try:
        return Followed(spec=parse_service(raw, name=resource["metadata"]["name"]), raw=raw)
    except InvalidSpec as error:
        refusal = error
    if last is None:
        return Followed(spec=None, raw=raw, refusal=refusal)
    try:
        return Followed(spec=parse_service(last), raw=last, refusal=refusal)
    except InvalidSpec as error:
        stale = [
            Problem(
                path=f"status.lastGoodSpec{item.path.removeprefix('spec')}",
                wanted=item.wanted,
                found=f"{item.found}, so that the fleet stays as it is",
            )
            for item in error.problems
        ]
        return Followed(spec=None, raw=raw, refusal=InvalidSpec((*refusal.problems, *stale)))
