"""This file is about ElasticMM's rules inside one multimodal group (arXiv 2507.10069).

The stage thresholds and the quick rules between prefill and decode of the authors' code, and the
gain/cost comparison of the paper for decode's scale-up. The pool's size is fixed.
"""

from dataclasses import dataclass
from typing import Any

from epidote_core.roles import Role
from epidote_loadgen.simulate.policy import Decision, Policy
from epidote_loadgen.simulate.rivals.resize import members, ready
from epidote_planner.decision import SwitchRole
from epidote_planner.groups import LanePressure, donate_cost, receive_gain
from epidote_planner.lane import DEFAULT_GROUP, SPLIT_ROLES, Lane
from epidote_planner.performance import PerformanceProfile
from epidote_planner.snapshot import ClusterSnapshot

DISCOUNTED = 19.9  # sum of 0.95^k over 100 intervals, as in the authors' code


@dataclass(frozen=True, kw_only=True)
class ElasticRules:
    """Queue lengths at which a stage asks for a worker; `penalty` is the paper's w."""

    profile: PerformanceProfile
    encode_queue: int = 15
    prefill_queue: int = 15
    decode_queue: int = 30
    decode_tokens: float = 0.9  # KV use above which decode takes a prefill worker
    penalty: float = 0.05
    interval_s: float = 5.0


def elastic_rules(rules: ElasticRules) -> Policy:
    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        at_s = memory["at_s"] if memory else -rules.interval_s
        if snapshot.now_s - at_s < rules.interval_s - 1e-9:
            return Decision(memory=memory, reason="Waiting")
        remembered = {"at_s": snapshot.now_s}
        chosen = _choose(snapshot, rules)
        if chosen is None:
            return Decision(memory=remembered, reason="Balanced")
        source, target = (Lane(DEFAULT_GROUP, role) for role in chosen)
        workers = ready(members(snapshot, source))
        if len(workers) < 2:
            return Decision(memory=remembered, reason="Balanced")
        emptiest = min(workers, key=lambda w: (w.num_running + w.num_waiting, w.name))
        action = SwitchRole(worker=emptiest.name, source=source, target=target)
        return Decision(
            actions=(action,), memory=remembered, reason="Preempt", text=f"{source} to {target}"
        )

    return decide


def _choose(snapshot: ClusterSnapshot, rules: ElasticRules) -> tuple[Role, Role] | None:
    waiting = {role: snapshot.roles[role].num_waiting for role in SPLIT_ROLES}
    kv = snapshot.roles[Role.DECODE].kv_utilization
    if waiting[Role.DECODE] > rules.decode_queue and waiting[Role.PREFILL] < 5:
        return Role.PREFILL, Role.DECODE
    if kv > rules.decode_tokens:
        return Role.PREFILL, Role.DECODE
    if waiting[Role.PREFILL] > 2 * rules.prefill_queue and waiting[Role.DECODE] < 10:
        return Role.DECODE, Role.PREFILL
    thresholds = {
        Role.ENCODE: rules.encode_queue,
        Role.PREFILL: rules.prefill_queue,
        Role.DECODE: rules.decode_queue,
    }
    asking = [role for role in SPLIT_ROLES if waiting[role] > thresholds[role]]
    if not asking:
        return None
    target = max(asking, key=lambda role: waiting[role] / thresholds[role])
    pressures = {role: _pressure(snapshot, role, rules.profile) for role in SPLIT_ROLES}
    gain = DISCOUNTED * receive_gain(pressures[target])
    donors = [
        (donate_cost(pressures[role], move_s=0.1, penalty=rules.penalty), role.value, role)
        for role in SPLIT_ROLES
        if role is not target and waiting[role] < thresholds[role] // 3
    ]
    if not donors or min(donors)[0] >= gain:
        return None
    return min(donors)[2], target


def _pressure(snapshot: ClusterSnapshot, role: Role, profile: PerformanceProfile) -> LanePressure:
    signals = snapshot.roles[role]
    count = len(members(snapshot, Lane(DEFAULT_GROUP, role)))
    total = sum(t.arrival_rps for t in snapshot.traffic) or 1.0
    prompt = (
        sum(t.arrival_rps * (t.input_tokens.mean + t.image_tokens.mean) for t in snapshot.traffic)
        / total
    )
    output = sum(t.arrival_rps * t.output_tokens.mean for t in snapshot.traffic) / total
    match role:
        case Role.ENCODE:
            each, tokens = profile.encode.seconds(1.0, prompt), prompt
        case Role.PREFILL:
            each, tokens = profile.prefill.seconds(max(1.0, prompt)), prompt
        case _:
            each, tokens = profile.decode.seconds(1.0, prompt) * max(1.0, output), output
    return LanePressure(
        workers=count,
        waiting_work_s=signals.num_waiting * each,
        waiting_tokens=signals.num_waiting * max(1.0, tokens),
        running_work_s=signals.num_running * each,
        running_tokens=signals.num_running * max(1.0, tokens),
        num_running=signals.num_running,
    )
