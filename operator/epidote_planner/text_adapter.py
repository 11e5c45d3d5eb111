"""This file is about driving the planner from a replay tool that knows text, prefill and decode.

Such a tool asks: given queues, running requests, KV use and traffic, how many prefill and how
many decode workers? Three lines answer it, tick after tick:

    session = TextReplay(policy)            # any PlannerPolicy; encode is switched off
    targets = session.step(observation)     # TextObservation -> TextTargets
    print(targets.prefill, targets.decode, targets.reason)

The tool owns time and workers. The memory between ticks is plain JSON, so a session may also be
kept outside (`session.memory`) and continued in another process.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from epidote_core.modality import Modality
from epidote_core.roles import Role, WorkerState
from epidote_planner.decision import Plan
from epidote_planner.distribution import Distribution
from epidote_planner.memory import PlannerMemory
from epidote_planner.planner import plan
from epidote_planner.policy import Bounds, PlannerPolicy
from epidote_planner.snapshot import ClusterSnapshot, ModalityTraffic, RoleSignals, WorkerStatus

NEVER_MOVED = float("-inf")  # such a tool doesn't tell who moved: the cool-down damps alone


@dataclass(frozen=True, kw_only=True)
class TextObservation:
    """One window as a text-only tool sees it. Quantiles are optional: None takes the mean.

    Raises:
        ValueError: a count or quantity is negative, not a number or infinite; names the field.
    """

    now_s: float
    num_prefill: int  # routable workers
    num_decode: int
    num_prefill_starting: int = 0
    num_decode_starting: int = 0
    arrival_rps: float = 0.0
    input_tokens: float = 0.0  # mean of a request
    output_tokens: float = 0.0
    input_tokens_p90: float | None = None
    input_tokens_p99: float | None = None
    prefill_waiting: int = 0
    prefill_waiting_tokens: float = 0.0
    decode_waiting: int = 0
    decode_running: int = 0
    kv_utilization: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name in ("input_tokens_p90", "input_tokens_p99"):
                continue
            if not isinstance(value, int | float) or not isfinite(value) or value < 0:
                raise ValueError(f"{field.name}: want a finite number >= 0, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class TextTargets:
    """What the planner wants, and why."""

    prefill: int
    decode: int
    reason: str
    text: str


def text_policy(policy: PlannerPolicy) -> PlannerPolicy:
    """The same policy without encoders; a switch of roles shows as two changed targets."""
    return replace(
        policy,
        roles={**policy.roles, Role.ENCODE: Bounds(least=0, most=0)},
        ratios=tuple(
            guard
            for guard in policy.ratios
            if Role.ENCODE not in (guard.numerator, guard.denominator)
        ),
    )


def to_snapshot(seen: TextObservation) -> ClusterSnapshot:
    """Name the workers by role and number; the planner needs identities only to choose."""
    counts = (
        (Role.PREFILL, seen.num_prefill, WorkerState.ROUTABLE),
        (Role.PREFILL, seen.num_prefill_starting, WorkerState.STARTING),
        (Role.DECODE, seen.num_decode, WorkerState.ROUTABLE),
        (Role.DECODE, seen.num_decode_starting, WorkerState.STARTING),
    )
    workers = tuple(
        WorkerStatus(
            name=f"{role.value}-{state.value}-{index}",
            role=role,
            state=state,
            since_s=NEVER_MOVED if state is WorkerState.ROUTABLE else seen.now_s,
        )
        for role, count, state in counts
        for index in range(count)
    )
    p90 = seen.input_tokens if seen.input_tokens_p90 is None else seen.input_tokens_p90
    p99 = p90 if seen.input_tokens_p99 is None else seen.input_tokens_p99
    traffic = ModalityTraffic(
        modality=Modality.TEXT,
        arrival_rps=seen.arrival_rps,
        input_tokens=Distribution(
            mean=seen.input_tokens, p50=min(seen.input_tokens, p90), p90=p90, p99=p99
        ),
        output_tokens=Distribution.constant(seen.output_tokens),
    )
    return ClusterSnapshot(
        now_s=seen.now_s,
        workers=workers,
        traffic=(traffic,),
        traffic_at_s=seen.now_s,
        roles={
            Role.PREFILL: RoleSignals(
                measured_at_s=seen.now_s,
                num_waiting=seen.prefill_waiting,
                waiting_tokens=seen.prefill_waiting_tokens,
            ),
            Role.DECODE: RoleSignals(
                measured_at_s=seen.now_s,
                num_waiting=seen.decode_waiting,
                num_running=seen.decode_running,
                kv_utilization=seen.kv_utilization,
            ),
        },
    )


def to_targets(decided: Plan) -> TextTargets:
    return TextTargets(
        prefill=decided.target(Role.PREFILL),
        decode=decided.target(Role.DECODE),
        reason=decided.explanation.reason.value,
        text=decided.explanation.text,
    )


class TextReplay:
    """Keeps the memory between ticks. `memory` is JSON and may be handed back later."""

    def __init__(self, policy: PlannerPolicy, memory: Mapping[str, Any] | None = None) -> None:
        self._policy = text_policy(policy)
        self.memory: Mapping[str, Any] | None = memory

    def step(self, seen: TextObservation) -> TextTargets:
        decided = plan(to_snapshot(seen), self._policy, PlannerMemory.from_json(self.memory))
        self.memory = decided.memory.to_json()
        return to_targets(decided)
