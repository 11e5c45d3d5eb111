"""This file is about the verdict alone, as a small JSON file: what a Job leaves for its operator.

Kubernetes takes 4096 bytes from a container's termination message, so objectives that held are
left out first when there are too many.
"""

import json
from pathlib import Path
from typing import Any

from epidote_loadgen.verdict.verdict import ObjectiveVerdict, Outcome, Verdict

SCHEMA = "epidote-loadgen.verdict/1"
MAX_BYTES = 4096
_ORDER = {Outcome.FAIL: 0, Outcome.INCONCLUSIVE: 1, Outcome.PASS: 2}


def verdict_json(verdict: Verdict, *, num_requests: int) -> str:
    """At most `MAX_BYTES` bytes of JSON, the worst objectives first."""
    worst_first = sorted(verdict.objectives, key=lambda found: _ORDER[found.outcome])
    objectives = [_objective(found) for found in worst_first]
    value: dict[str, Any] = {
        "schema": SCHEMA,
        "outcome": verdict.outcome.value,
        "exit_code": int(verdict.exit_code),
        "reason": verdict.reason[:1000],
        "num_requests": num_requests,
        "num_objectives": len(objectives),
        "objectives": objectives,
    }
    while len(text := json.dumps(value, separators=(",", ":"), allow_nan=False)) >= MAX_BYTES:
        objectives.pop()
    return text + "\n"


def write_verdict(path: Path, verdict: Verdict, *, num_requests: int) -> None:
    """In place: a pod's termination log is a mount, which nothing can be renamed onto.

    Raises:
        OSError: it can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(verdict_json(verdict, num_requests=num_requests), encoding="utf-8")


def _objective(found: ObjectiveVerdict) -> dict[str, Any]:
    return {
        "class": found.class_name,
        "objective": found.objective.name,
        "outcome": found.outcome.value,
        "attainment": round(found.attainment, 6) if found.num_requests else None,
        "ratio": found.objective.ratio,
        "low": round(found.interval.low, 6),
        "high": round(found.interval.high, 6),
        "num_requests": found.num_requests,
        "more_requests": found.more_requests,
    }
