"""This file is about the least GPU time that any autoscaler could have used for a trace.

A perfect autoscaler knows the future, starts workers in no time and never waits for a batch to
fill. What it cannot avoid is the work itself. For a request that meets its SLO the work is at
least, whatever the fleet and its layout:

* encode: its images at the marginal cost of a full batch;
* prefill: its tokens and attention pairs at the marginal cost, without the steps' fixed part;
* decode: out−1 tokens. A step of n sequences that hold K tokens takes a + b·n + c·K, so a
  sequence's share of it is a/n + b + c·(its own context). Its mean step is at most the TPOT, and a
  step is at least a + n·(b + c), so by Jensen the mean of 1/n is at least 1/n* with
  n* = (TPOT − a)/(b + c), or the batch limit if that is less.

The sum over the cheapest q·N requests bounds every policy with attainment q from below. It is a
bound on GPU time, not a plan: nobody reaches it, because queues at full load have no end.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from epidote_core.slo import Slo
from epidote_loadgen.simulate.config import SimConfig
from epidote_loadgen.simulate.sim_request import SimRequest
from epidote_planner.performance import PerformanceProfile


@dataclass(frozen=True, kw_only=True)
class LowerBound:
    """GPU-seconds; `of_workers` is what minima of the policy alone would cost."""

    work_s: float
    of_workers_s: float = 0.0

    @property
    def gpu_seconds(self) -> float:
        return max(self.work_s, self.of_workers_s)


def least_work_s(request: SimRequest, profile: PerformanceProfile, slo: Slo) -> float:
    """GPU-seconds that the request costs at least if it meets `slo`; caches are not assumed."""
    encode, prefill, decode = profile.encode, profile.prefill, profile.decode
    images, image_tokens = len(request.image_tokens), sum(request.image_tokens)
    work_s = images * encode.per_image_s + image_tokens * encode.per_token_s
    if images:
        work_s += encode.base_s * images / max(images, encode.max_images)
    tokens, steps = request.prompt_tokens, request.output_tokens - 1
    work_s += tokens * prefill.per_token_s + tokens * tokens / 2 * prefill.per_pair_s
    if steps <= 0:
        return work_s
    each_s = decode.per_sequence_s + decode.per_context_token_s
    widest = float(decode.max_sequences)
    if each_s > 0.0:
        widest = max(1.0, min(widest, (slo.tpot_s - decode.base_s) / each_s))
    context = steps * (tokens + 1) + steps * (steps - 1) / 2
    return (
        work_s
        + steps * (decode.base_s / widest + decode.per_sequence_s)
        + context * decode.per_context_token_s
    )


def lower_bound(
    config: SimConfig, trace: Iterable[SimRequest], *, attainment: float, least_workers: int = 0
) -> LowerBound:
    """For a policy that reached `attainment`. Requires that no cache answers for a worker."""
    if config.prefix_blocks or config.encoder_cache_images or config.answer_ttl_s:
        raise ValueError("the bound holds without caches: their hits avoid work that it counts")
    works, last_s = [], 0.0
    for request in trace:
        works.append(least_work_s(request, config.profile, config.slo_for(request.modality)))
        last_s = request.arrival_s
    works.sort()
    needed = works[: int(len(works) * attainment)]
    return LowerBound(work_s=sum(needed), of_workers_s=least_workers * last_s)
