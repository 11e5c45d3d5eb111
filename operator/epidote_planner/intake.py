"""This file is about figures that no measurement gives: they count as missing, never as load.

One NaN in a smoothed level would stay there for ever, so nothing is planned from, and nothing
remembered of, an observation before it has passed here.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite

from epidote_core.roles import Role
from epidote_planner.decision import Hold, Reason
from epidote_planner.experts import ExpertLoad
from epidote_planner.lane import Lane
from epidote_planner.policy import PlannerPolicy
from epidote_planner.snapshot import (
    Attainment,
    CacheSignals,
    ClusterSnapshot,
    ModalityTraffic,
    RoleSignals,
    ServiceSample,
    WorkerStatus,
)

MOST = 1e9  # requests, tokens or seconds: larger figures are counters read wrongly
TRAFFIC_FIELDS = ("input_tokens", "output_tokens", "images", "image_tokens")
QUEUE_FIELDS = ("num_waiting", "waiting_tokens", "num_running")
CACHE_FIELDS = ("response_hit_ratio", "prefix_hit_ratio", "encoder_hit_ratio")
SAMPLE_FIELDS = ("seconds", "sequences", "images", "tokens", "context")


def take_in(
    snapshot: ClusterSnapshot, policy: PlannerPolicy
) -> tuple[ClusterSnapshot, tuple[Hold, ...]]:
    """The believable part of a snapshot, and a hold, naming its field, for what it lost.

    Traffic, cache ratios and the time concern every lane; queues concern their role. A bad step
    time, attainment or expert load is dropped without a hold: what was learnt before stays.
    Times a little ahead are another host's clock and count as now; those further ahead than
    metrics stay fresh are stale.
    """
    now_s, timeout_s = snapshot.now_s, policy.damping.metrics_timeout_s
    traffic_at_s = snapshot.traffic_at_s
    if not isfinite(now_s):
        return snapshot, (_missing("now_s"),)
    holds: list[Hold] = []
    if traffic_at_s is not None:
        field = _bad_traffic(snapshot)
        if field:
            holds.append(_missing(field))
        elif traffic_at_s - now_s > timeout_s:
            holds.append(Hold(lane=None, reason=Reason.METRICS_STALE, field="traffic_at_s"))
        traffic_at_s = None if holds else min(traffic_at_s, now_s)
    roles, of_roles = _queues(snapshot.roles, now_s, timeout_s, policy)
    believed = replace(
        snapshot,
        traffic=snapshot.traffic if traffic_at_s is not None else (),
        traffic_at_s=traffic_at_s,
        roles=roles,
        cache=snapshot.cache if _is_cache(snapshot.cache) else CacheSignals(),
        workers=tuple(_worker(worker, now_s) for worker in snapshot.workers),
        attainment=_attainment(snapshot.attainment, now_s, timeout_s),
        experts=_experts(snapshot.experts),
    )
    return believed, (*holds, *of_roles)


def _missing(field: str, lane: Lane | None = None) -> Hold:
    return Hold(lane=lane, reason=Reason.METRICS_MISSING, field=field)


def _is_amount(value: float) -> bool:
    return 0.0 <= value <= MOST  # false for NaN, too


def _is_ratio(value: float) -> bool:
    return 0.0 <= value <= 1.0


def _bad_traffic(snapshot: ClusterSnapshot) -> str:
    """The first field of the traffic or the caches that cannot be; "" where all can."""
    if snapshot.traffic_at_s is not None and not isfinite(snapshot.traffic_at_s):
        return "traffic_at_s"
    for item in snapshot.traffic:
        field = _bad_modality(item)
        if field:
            return f"traffic.{item.modality.value}.{field}"
    for name in CACHE_FIELDS:
        if not _is_ratio(getattr(snapshot.cache, name)):
            return f"cache.{name}"
    return ""


def _is_cache(cache: CacheSignals) -> bool:
    return all(_is_ratio(getattr(cache, name)) for name in CACHE_FIELDS)


def _bad_modality(item: ModalityTraffic) -> str:
    if not _is_amount(item.arrival_rps):
        return "arrival_rps"
    for name in TRAFFIC_FIELDS:
        shape = getattr(item, name)
        if not all(_is_amount(v) for v in (shape.mean, shape.p50, shape.p90, shape.p99)):
            return name
    return ""


def _queues(
    roles: Mapping[Role, RoleSignals], now_s: float, timeout_s: float, policy: PlannerPolicy
) -> tuple[dict[Role, RoleSignals], list[Hold]]:
    kept: dict[Role, RoleSignals] = {}
    holds: list[Hold] = []
    for role, signals in roles.items():
        reason = Reason.METRICS_MISSING
        names = [name for name in QUEUE_FIELDS if not _is_amount(getattr(signals, name))]
        if not isfinite(signals.measured_at_s):
            names.insert(0, "measured_at_s")
        elif not names and signals.measured_at_s - now_s > timeout_s:
            names, reason = ["measured_at_s"], Reason.METRICS_STALE
        if not names:
            kept[role] = signals
            continue
        field = f"roles.{role.value}.{names[0]}"
        holds.extend(
            Hold(lane=lane, reason=reason, field=field)
            for lane in policy.lanes
            if lane.role is role
        )
    return kept, holds


def _worker(worker: WorkerStatus, now_s: float) -> WorkerStatus:
    """A worker without the figures that cannot be; a start time that is none counts as now."""
    sample = worker.sample
    if sample is not None and not _is_sample(sample):
        worker = replace(worker, sample=None)
    if not _is_amount(worker.num_running) or not _is_amount(worker.num_waiting):
        worker = replace(worker, num_running=0, num_waiting=0)
    if worker.since_s != worker.since_s or worker.since_s == float("inf"):
        worker = replace(worker, since_s=now_s)
    return worker


def _is_sample(sample: ServiceSample) -> bool:
    return all(_is_amount(getattr(sample, name)) for name in SAMPLE_FIELDS)


def _attainment(seen: Attainment | None, now_s: float, timeout_s: float) -> Attainment | None:
    if seen is None or not (_is_ratio(seen.ttft_ratio) and _is_ratio(seen.tpot_ratio)):
        return None
    # "not <=" and not ">": a NaN is dropped as well
    if not _is_amount(seen.num_requests) or not seen.measured_at_s - now_s <= timeout_s:
        return None
    return seen


def _experts(seen: ExpertLoad | None) -> ExpertLoad | None:
    if seen is None or not 1.0 <= seen.imbalance <= MOST or not _is_ratio(seen.expert_time_ratio):
        return None
    move = seen.proposal
    if move is None:
        return seen
    figures = (move.imbalance, move.migration_s, move.slowdown)
    return seen if all(_is_amount(value) for value in figures) else replace(seen, proposal=None)
