"""This file is about Kubernetes' Horizontal Pod Autoscaler, one for each lane.

desired = ceil(pods · metric / target), nothing inside the tolerance; not-ready pods count as idle
when scaling up; down only to the largest recommendation of the window; up by at most the larger
of four pods and 100 % a sync (the documented defaults).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from math import ceil
from typing import Any

from epidote_loadgen.simulate.policy import Decision, Policy
from epidote_loadgen.simulate.rivals.resize import members, ready, resize
from epidote_planner.lane import Lane
from epidote_planner.snapshot import ClusterSnapshot, WorkerStatus

SYNC_S = 15.0
TOLERANCE = 0.1


class Metric(StrEnum):
    """What a pod reports."""

    BUSY = "busy"  # share of the window it computed (encode, prefill)
    CONCURRENCY = "concurrency"  # requests running and waiting
    KV = "kv"  # KV pool in use


@dataclass(frozen=True, kw_only=True)
class HpaRule:
    """One autoscaler."""

    metric: Metric
    target: float
    least: int = 1
    most: int = 1000
    down_window_s: float = 300.0


def hpa(rules: Mapping[Lane, HpaRule]) -> Policy:
    """Autoscalers that know nothing of each other."""

    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        memory = memory or {"sync_s": -SYNC_S, "past": {}}
        if snapshot.now_s - memory["sync_s"] < SYNC_S - 1e-9:
            return Decision(memory=memory, reason="Waiting")
        past: dict[str, list[tuple[float, int]]] = {}
        wanted = {}
        for lane, rule in rules.items():
            raw = _desired(snapshot, lane, rule)
            since = snapshot.now_s - rule.down_window_s
            kept = [entry for entry in memory["past"].get(lane.key, []) if entry[0] > since]
            past[lane.key] = [*kept, (snapshot.now_s, raw)]
            current = len(members(snapshot, lane))
            stable = max(count for _, count in past[lane.key])
            count = raw if raw >= current else min(current, stable)
            count = min(count, max(current + 4, 2 * current))
            wanted[lane] = min(rule.most, max(rule.least, count))
        text = ", ".join(f"{lane}: {count}" for lane, count in wanted.items())
        return Decision(
            actions=resize(snapshot, wanted),
            memory={"sync_s": snapshot.now_s, "past": past},
            reason="Hpa",
            text=text,
        )

    return decide


def _desired(snapshot: ClusterSnapshot, lane: Lane, rule: HpaRule) -> int:
    workers = members(snapshot, lane)
    running = ready(workers)
    if not running:
        return max(rule.least, len(workers))
    total = _total(snapshot, lane, running, rule.metric)
    ratio = total / len(running) / rule.target
    if abs(ratio - 1.0) <= TOLERANCE:
        return len(workers)
    if ratio > 1.0:
        ratio = total / len(workers) / rule.target
        return len(workers) if ratio <= 1.0 + TOLERANCE else ceil(len(workers) * ratio - 1e-9)
    return ceil(len(running) * ratio - 1e-9)


def _total(
    snapshot: ClusterSnapshot, lane: Lane, workers: list[WorkerStatus], metric: Metric
) -> float:
    signals = snapshot.roles[lane.role]
    match metric:
        case Metric.BUSY:
            return signals.busy_utilization * len(workers)
        case Metric.KV:
            return signals.kv_utilization * len(workers)
        case Metric.CONCURRENCY:
            return float(signals.num_running + signals.num_waiting)
