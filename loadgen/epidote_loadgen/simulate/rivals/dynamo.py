"""This file is about NVIDIA Dynamo's SLA planner, its throughput loop and its load loop.

Throughput: demand of the last interval over profiled throughput, prefill corrected by
min(1, observed/profiled TTFT), decode by the ITL that its own correction leaves. Load: KV use and
prefill queue against thresholds, one worker at a time. Encoders are not scaled upstream; here
they follow the prefill rule, without which no multimodal trace could be served.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from epidote_core.roles import Role
from epidote_core.slo import Slo
from epidote_loadgen.simulate.policy import Decision, Policy
from epidote_loadgen.simulate.rivals.keda import token_rates
from epidote_loadgen.simulate.rivals.resize import members, ready, resize
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.performance import PerformanceProfile
from epidote_planner.snapshot import ClusterSnapshot


@dataclass(frozen=True, kw_only=True)
class DynamoRule:
    """The published defaults; `target_utilization` is what a search may tune."""

    profile: PerformanceProfile
    slo: Slo
    interval_s: float = 180.0
    target_utilization: float = 1.0  # of the profiled throughput
    kv_up: float = 0.9
    kv_down: float = 0.5
    queue_up: float = 5.0
    queue_down: float = 0.2
    load_interval_s: float = 10.0


ENCODE = Lane(DEFAULT_GROUP, Role.ENCODE)
PREFILL = Lane(DEFAULT_GROUP, Role.PREFILL)
DECODE = Lane(DEFAULT_GROUP, Role.DECODE)


def dynamo_throughput(rule: DynamoRule) -> Policy:
    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        memory = _gathered(memory, snapshot)
        if snapshot.now_s - memory["at_s"] < rule.interval_s - 1e-9:
            return Decision(memory=memory, reason="Waiting")
        windows = max(1, memory["windows"])
        rates = {role: memory["rates"][role.value] / windows for role in token_rates(snapshot)}
        wanted = {
            ENCODE: _encoders(rule, snapshot, rates[Role.ENCODE]),
            PREFILL: _prefillers(rule, rates[Role.PREFILL]),
            DECODE: _decoders(rule, snapshot, rates[Role.DECODE]),
        }
        return Decision(
            actions=resize(snapshot, wanted),
            memory={"at_s": snapshot.now_s, "windows": 0, "rates": {}},
            reason="DynamoThroughput",
            text=", ".join(f"{lane}: {count}" for lane, count in wanted.items()),
        )

    return decide


def dynamo_load(rule: DynamoRule) -> Policy:
    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        at_s = memory["at_s"] if memory else -rule.load_interval_s
        if snapshot.now_s - at_s < rule.load_interval_s - 1e-9:
            return Decision(memory=memory, reason="Waiting")
        wanted = {}
        for lane in (ENCODE, PREFILL, DECODE):
            workers = members(snapshot, lane)
            running = max(1, len(ready(workers)))
            signals = snapshot.roles[lane.role]
            if lane is DECODE:
                value, up, down = signals.kv_utilization, rule.kv_up, rule.kv_down
            else:
                value, up, down = signals.num_waiting / running, rule.queue_up, rule.queue_down
            starting = len(workers) > len(ready(workers))  # one step at a time
            change = (value > up and not starting) - (value < down and not starting)
            wanted[lane] = max(1, len(workers) + change)
        return Decision(
            actions=resize(snapshot, wanted),
            memory={"at_s": snapshot.now_s},
            reason="DynamoLoad",
        )

    return decide


def _gathered(memory: Any, snapshot: ClusterSnapshot) -> dict[str, Any]:
    """The interval's mean rates."""
    memory = memory or {"at_s": 0.0, "windows": 0, "rates": {}}
    rates = dict(memory["rates"])
    for role, rate in token_rates(snapshot).items():
        rates[role.value] = rates.get(role.value, 0.0) + rate
    return {"at_s": memory["at_s"], "windows": memory["windows"] + 1, "rates": rates}


def _encoders(rule: DynamoRule, snapshot: ClusterSnapshot, tokens_s: float) -> int:
    images = sum(t.arrival_rps * t.images.mean for t in snapshot.traffic)
    tokens = sum(t.arrival_rps * t.image_tokens.mean for t in snapshot.traffic)
    each = tokens / images if images > 0.0 else 1.0
    throughput = each / rule.profile.encode.seconds(1.0, each)
    return max(1, ceil(tokens_s / throughput / rule.target_utilization))


def _prefillers(rule: DynamoRule, tokens_s: float) -> int:
    cost = rule.profile.prefill
    throughput = cost.max_tokens / cost.seconds(cost.max_tokens)
    return max(1, ceil(tokens_s / throughput / rule.target_utilization))


def _decoders(rule: DynamoRule, snapshot: ClusterSnapshot, tokens_s: float) -> int:
    """Best decode throughput whose ITL stays under the target left by the correction."""
    cost = rule.profile.decode
    total = sum(t.arrival_rps for t in snapshot.traffic)
    context = (
        sum(
            t.arrival_rps * (t.input_tokens.mean + t.image_tokens.mean + t.output_tokens.mean / 2)
            for t in snapshot.traffic
        )
        / total
        if total > 0.0
        else 1.0
    )
    most = max(1, min(cost.max_sequences, int(cost.kv_tokens / max(1.0, context))))
    fits = [n for n in range(1, most + 1) if cost.seconds(n, n * context) <= rule.slo.tpot_s]
    batch = fits[-1] if fits else 1
    throughput = batch / cost.seconds(batch, batch * context)
    return max(1, ceil(tokens_s / throughput / rule.target_utilization))
