"""This file is about showing ticks and decisions to people: lines on stdout, or JSON."""

import json
from collections.abc import Mapping
from typing import Any

from epidote_operator.local import LocalTick
from epidote_operator.spec.service_status import ConditionStatus, MultimodalServiceStatus
from epidote_operator.status.conditions import timestamp
from epidote_planner.decision import Plan


def line_of(shown: LocalTick) -> str:
    """One tick as one line, and a paragraph under it where the decision is news."""
    status = shown.status
    roles = " ".join(
        f"{role.name.value.lower()} {role.ready}/{role.desired}"
        + (f"(+{role.switching})" if role.switching else "")
        for role in status.roles
    )
    wrong = [
        f"{condition.type}: {condition.reason}"
        for condition in status.conditions
        if condition.type in ("Ready", "ScalingActive", "AbleToScale")
        and condition.status is ConditionStatus.FALSE
    ]
    parts = [timestamp(shown.tick.now_s), roles, *wrong]
    lines = ["  ".join(parts)]
    if shown.decision is not None:
        lines.append(f"  {shown.decision.text}")
    lines += [f"  done: {done}" for done in shown.tick.outcome.done]
    if shown.tick.outcome.failure:
        lines.append(f"  failed: {shown.tick.outcome.failure}")
    return "\n".join(lines)


def status_json(status: MultimodalServiceStatus) -> str:
    """The status as the resource has it, on one line."""
    return status.model_dump_json(by_alias=True, exclude_none=True)


def plan_json(plan: Plan) -> Mapping[str, Any]:
    """A decision with every step that led to it."""
    explanation = plan.explanation
    return {
        "reason": explanation.reason.value,
        "binding": explanation.binding.value,
        "text": explanation.text,
        "counterfactual": explanation.counterfactual,
        "inputs": dict(explanation.inputs),
        "targets": {str(lane): count for lane, count in plan.targets.items()},
        "holds": [
            {
                "lane": str(hold.lane) if hold.lane else "",
                "reason": hold.reason.value,
                "field": hold.field,
            }
            for hold in plan.holds
        ],
        "steps": [
            {"name": step.name, "values": dict(step.values), "note": step.note}
            for step in plan.trace
        ],
    }


def plan_text(plan: Plan, actions: tuple[str, ...]) -> str:
    """A decision for the person on call: what, why, and the figures on the way there."""
    targets = ", ".join(f"{lane} {count}" for lane, count in sorted(plan.targets.items()))
    lines = [plan.explanation.text, "", f"targets   {targets}"]
    lines += [f"action    {action}" for action in actions] or ["action    none"]
    for hold in plan.holds:
        field = f" ({hold.field})" if hold.field else ""
        lines.append(f"held      {hold.lane or 'everything'}: {hold.reason.value}{field}")
    for step in plan.trace:
        values = ", ".join(f"{name} {value:g}" for name, value in step.values.items())
        told = " ".join(part for part in (values, step.note) if part)
        lines.append(f"{step.name:<9} {told}")
    return "\n".join(lines)


def as_json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, sort_keys=True)
