"""This file is about the least GPU time that any fleet needed for the requests it served well.

The bound of `epidote_loadgen.simulate.bound`, over a real run: only good requests count, tokens
that a cache answered cost nothing, and a picture is encoded once however often it is sent.
"""

from collections.abc import Iterable

from epidote_core.slo import Slo
from epidote_loadgen.records import RequestRecord
from epidote_loadgen.simulate.bound import least_work_s
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_loadgen.slo import SloTable
from epidote_planner.performance import PerformanceProfile

NO_LIMIT_S = 3600.0  # where an SLO class promises nothing about the time per token


def least_gpu_seconds(
    records: Iterable[RequestRecord], slo: SloTable, profile: PerformanceProfile
) -> float:
    """GPU-seconds of the good requests at the profile's marginal costs."""
    seen: set[str] = set()
    total_s = 0.0
    for record in records:
        slo_class = slo.class_of(record)
        if slo_class is None or not slo_class.good(record):
            continue
        if record.cache.lower().startswith("hit"):
            continue
        limits = [o.tpot_s for o in slo_class.objectives if o.tpot_s is not None]
        request = _as_computed(record, seen)
        promise = Slo(ttft_s=NO_LIMIT_S, tpot_s=min(limits, default=NO_LIMIT_S))
        total_s += least_work_s(request, profile, promise)
        seen.update(record.attributes.image_ids)
    return total_s


def _as_computed(record: RequestRecord, seen: set[str]) -> SimRequest:
    """What had to be computed of it: prompt tokens that no cache had, pictures not seen yet."""
    attributes = record.attributes
    prompt = record.prompt_tokens or attributes.prompt_tokens or 0
    fresh = [name for name in attributes.image_ids if name not in seen]
    image_tokens = 0
    if attributes.num_images and attributes.prompt_tokens is not None:
        image_tokens = max(0, prompt - attributes.prompt_tokens) // attributes.num_images
    computed = max(1, prompt - (record.cached_tokens or 0))
    images = (image_tokens,) * len(fresh)
    return SimRequest(
        record.intended_send_s,
        max(0, computed - sum(images)),
        max(1, record.num_tokens),
        images,
    )
