"""This file is about token-velocity scaling: a Prometheus query a role, divided by a target.

The rule that llm-d's KEDA blueprint states: workers = token rate / tokens a worker absorbs per
second, image tokens for encode, prompt tokens for prefill, output tokens for decode. Polled;
scale-down waits for the HPA's window underneath.
"""

from dataclasses import dataclass
from math import ceil
from typing import Any

from epidote_core.roles import Role
from epidote_loadgen.simulate.policy import Decision, Policy
from epidote_loadgen.simulate.rivals.resize import members, resize
from epidote_planner.lane import DEFAULT_GROUP, Lane
from epidote_planner.snapshot import ClusterSnapshot


@dataclass(frozen=True, kw_only=True)
class TokenVelocity:
    """Tokens per second that one worker is meant to take."""

    encode: float
    prefill: float
    decode: float
    poll_s: float = 30.0
    down_window_s: float = 300.0


def token_velocity(rule: TokenVelocity) -> Policy:
    def decide(snapshot: ClusterSnapshot, memory: Any) -> Decision:
        memory = memory or {"polled_s": -rule.poll_s, "past": {}}
        if snapshot.now_s - memory["polled_s"] < rule.poll_s - 1e-9:
            return Decision(memory=memory, reason="Waiting")
        rates = token_rates(snapshot)
        since = snapshot.now_s - rule.down_window_s
        past, wanted = {}, {}
        for role, velocity in (
            (Role.ENCODE, rule.encode),
            (Role.PREFILL, rule.prefill),
            (Role.DECODE, rule.decode),
        ):
            lane = Lane(DEFAULT_GROUP, role)
            raw = max(1, ceil(rates[role] / velocity - 1e-9))
            kept = [entry for entry in memory["past"].get(role.value, []) if entry[0] > since]
            past[role.value] = [*kept, (snapshot.now_s, raw)]
            current = len(members(snapshot, lane))
            stable = max(count for _, count in past[role.value])
            wanted[lane] = raw if raw >= current else min(current, stable)
        return Decision(
            actions=resize(snapshot, wanted),
            memory={"polled_s": snapshot.now_s, "past": past},
            reason="TokenVelocity",
            text=", ".join(f"{lane}: {count}" for lane, count in wanted.items()),
        )

    return decide


def token_rates(snapshot: ClusterSnapshot) -> dict[Role, float]:
    """Tokens per second that arrive for each role."""
    return {
        Role.ENCODE: sum(t.arrival_rps * t.image_tokens.mean for t in snapshot.traffic),
        Role.PREFILL: sum(
            t.arrival_rps * (t.input_tokens.mean + t.image_tokens.mean) for t in snapshot.traffic
        ),
        Role.DECODE: sum(t.arrival_rps * t.output_tokens.mean for t in snapshot.traffic),
    }
