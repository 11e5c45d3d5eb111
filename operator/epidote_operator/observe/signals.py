"""This file is about what metrics say to the planner: traffic, attainment, cache hits, queues.

Pure: two scrapes and a fleet report in, values of the planner's snapshot out.
"""

from collections.abc import Iterable, Mapping

from epidote_core import metric_names as names
from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_core.slo import Slo
from epidote_operator.observe.exposition import Buckets, Scrape
from epidote_operator.observe.gateway_client import FleetReport, WorkerReport
from epidote_planner.distribution import Distribution
from epidote_planner.lane import SPLIT_ROLES
from epidote_planner.snapshot import Attainment, CacheSignals, ModalityTraffic, RoleSignals

COLLAPSED = "collapsed"
SHED_CODES = ("overloaded", "queue_full", "rate_limit_exceeded")


def traffic(
    grown: Scrape,
    seconds: float,
    *,
    queue_growth: float = 0.0,
    shapes: Mapping[Modality, ModalityTraffic] | None = None,
) -> tuple[ModalityTraffic, ...]:
    """Arrivals of each modality over a window of `seconds`.

    `grown` is what the gateways' counters gained. Requests that wait for admission or were shed
    have arrived, too: they are shared out like those that were seen. A modality whose requests
    have not finished yet keeps the sizes of `shapes`, the last ones known.
    """
    arrived = grown.by_label(f"{names.EPIDOTE_ARRIVALS}_total", "modality")
    unseen = max(0.0, queue_growth) + sum(
        grown.total(f"{names.EPIDOTE_REQUEST_ERRORS}_total", code=code) for code in SHED_CODES
    )
    seen = sum(arrived.values())
    factor = 1.0 + unseen / seen if seen else 1.0
    found = []
    for modality in Modality:
        if modality.value not in arrived:
            continue
        rps = arrived[modality.value] * factor / seconds
        found.append(_sized(grown, modality, rps, (shapes or {}).get(modality)))
    return tuple(found)


def _sized(
    grown: Scrape, modality: Modality, rps: float, last: ModalityTraffic | None
) -> ModalityTraffic:
    output = _distribution(grown, names.EPIDOTE_OUTPUT_TOKENS, modality)
    if output.mean == 0.0 and last is not None:
        return ModalityTraffic(
            modality=modality,
            arrival_rps=rps,
            input_tokens=last.input_tokens,
            output_tokens=last.output_tokens,
            images=last.images,
            image_tokens=last.image_tokens,
        )
    return ModalityTraffic(
        modality=modality,
        arrival_rps=rps,
        input_tokens=_distribution(grown, names.EPIDOTE_TEXT_TOKENS, modality),
        output_tokens=output,
        images=_distribution(grown, names.EPIDOTE_MEDIA, modality),
        image_tokens=_distribution(grown, names.EPIDOTE_MEDIA_TOKENS, modality),
    )


def _distribution(grown: Scrape, name: str, modality: Modality) -> Distribution:
    buckets = Buckets.of(grown, name, modality=modality.value)
    if not buckets.count:
        return Distribution()
    return Distribution(
        mean=buckets.mean,
        p50=buckets.quantile(0.5),
        p90=buckets.quantile(0.9),
        p99=buckets.quantile(0.99),
    )


def attainment(grown: Scrape, slos: Mapping[Modality, Slo]) -> Attainment | None:
    """Shares of the finished requests that met each target; None if none has finished.

    TTFT is judged against each modality's own target; TPOT, which gateways do not split by
    modality, against the loosest one.
    """
    met = count = 0.0
    for modality, slo in slos.items():
        buckets = Buckets.of(grown, names.EPIDOTE_TTFT_SECONDS, modality=modality.value)
        met += buckets.count * buckets.share_at_most(slo.ttft_s)
        count += buckets.count
    if not count:
        return None
    tpot = Buckets.of(grown, names.VLLM_REQUEST_TPOT_SECONDS)
    return Attainment(
        measured_at_s=grown.at_s,
        num_requests=round(count),
        ttft_ratio=met / count,
        tpot_ratio=tpot.share_at_most(max(slo.tpot_s for slo in slos.values())),
    )


def cache_signals(grown: Scrape) -> CacheSignals:
    """Hit ratios of the window; 0 where nothing was looked up.

    The response cache's is the share of arrivals that need no worker: hits, and those that shared
    the answer of an equal question under way. What it never looked up counts as arrived.
    """
    hits = grown.total(f"{names.EPIDOTE_CACHE_HITS}_total")
    misses = grown.total(f"{names.EPIDOTE_CACHE_MISSES}_total")
    shared = grown.total(f"{names.EPIDOTE_CACHE_MISSES}_total", why=COLLAPSED)
    bypasses = grown.total(f"{names.EPIDOTE_CACHE_BYPASSES}_total")
    return CacheSignals(
        response_hit_ratio=_ratio(hits + shared, hits + misses + bypasses),
        prefix_hit_ratio=_ratio(
            grown.total(f"{names.VLLM_PREFIX_CACHE_HITS}_total"),
            grown.total(f"{names.VLLM_PREFIX_CACHE_QUERIES}_total"),
        ),
    )


def _ratio(part: float, whole: float) -> float:
    return min(1.0, part / whole) if whole > 0.0 else 0.0


def role_signals(fleet: FleetReport) -> dict[Role, RoleSignals]:
    """Queues by role, from the workers' own reports. A role without a live worker has no entry."""
    found = {}
    for role in SPLIT_ROLES:
        members = [
            worker
            for worker in fleet.workers
            if worker.role in (role, Role.ALL) and worker.state is not WorkerState.FAILED
        ]
        if members:
            found[role] = _signals(fleet.at_s, role, members)
    return found


def _signals(at_s: float, role: Role, members: Iterable[WorkerReport]) -> RoleSignals:
    workers = list(members)
    blocks = sum(worker.num_kv_blocks for worker in workers)
    free = sum(worker.num_free_kv_blocks for worker in workers)
    is_encode = role is Role.ENCODE
    return RoleSignals(
        measured_at_s=at_s,
        num_waiting=sum(w.num_encoding if is_encode else w.num_waiting for w in workers),
        waiting_tokens=0.0
        if role is Role.DECODE or is_encode
        else float(sum(worker.queued_prefill_tokens for worker in workers)),
        num_running=sum(worker.num_running for worker in workers),
        kv_utilization=1.0 - free / blocks if blocks else 0.0,
    )
