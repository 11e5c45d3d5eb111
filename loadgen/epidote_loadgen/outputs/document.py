"""This file is about the JSON document of a run: everything that a report or a comparison needs.

Its fields are described in docs/loadgen.md and change only with `SCHEMA`. NaN and infinity never
occur; what is not known is null.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from epidote_loadgen.elasticity.efficiency import elasticity
from epidote_loadgen.measures.summary import TOTAL, summarise
from epidote_loadgen.outputs.figures import figures
from epidote_loadgen.outputs.request_columns import columns
from epidote_loadgen.outputs.scores import scores
from epidote_loadgen.outputs.writing import write_text
from epidote_loadgen.records import RunResult
from epidote_loadgen.slo import SloTable
from epidote_loadgen.verdict.verdict import ObjectiveVerdict, Verdict

SCHEMA = "epidote-loadgen.run/1"
Document = dict[str, Any]


def document(result: RunResult, slo: SloTable, verdict: Verdict) -> Document:
    """The run as plain JSON values."""
    summaries = summarise(result.records, slo)
    started = datetime.fromtimestamp(result.started_at_unix_s, UTC)
    last_s = max((record.intended_send_s for record in result.records), default=0.0)
    first_s = min((record.intended_send_s for record in result.records), default=0.0)
    num = len(result.records)
    return {
        "schema": SCHEMA,
        "run": {
            "config_digest": result.config_digest,
            "seed": result.seed,
            "started_at": started.isoformat(timespec="milliseconds"),
            "started_at_unix_s": round(result.started_at_unix_s, 3),
            "duration_s": round(result.duration_s, 3),
            "asked_rps": round((num - 1) / (last_s - first_s), 4) if last_s > first_s else None,
            "interrupted": result.interrupted,
            "void_reason": result.void_reason,
        },
        "verdict": verdict_values(verdict),
        "summary": figures(summaries.pop(TOTAL), duration_s=result.duration_s),
        "classes": {
            name: figures(summary, duration_s=result.duration_s)
            for name, summary in summaries.items()
        },
        "scores": scores(result.records),
        "client": asdict(result.self_watch),
        "watch": dict(result.watch),
        "elasticity": elasticity(result, slo),
        "config": dict(result.config),
        "requests": columns(result.records, slo),
    }


def verdict_values(verdict: Verdict) -> dict[str, Any]:
    return {
        "outcome": verdict.outcome.value,
        "exit_code": int(verdict.exit_code),
        "reason": verdict.reason,
        "num_cut": verdict.num_cut,
        "confidence": verdict.confidence,
        "each_confidence": round(verdict.each_confidence, 6),
        "objectives": [_objective(found) for found in verdict.objectives],
    }


def _objective(found: ObjectiveVerdict) -> dict[str, Any]:
    limits = asdict(found.objective)
    return {
        "class": found.class_name,
        "objective": found.objective.name,
        **limits,
        "num_requests": found.num_requests,
        "num_met": found.num_met,
        "attainment": round(found.attainment, 6) if found.num_requests else None,
        "low": round(found.interval.low, 6),
        "high": round(found.interval.high, 6),
        "design_effect": round(found.design_effect, 3),
        "outcome": found.outcome.value,
        "more_requests": found.more_requests,
    }


def write_document(path: Path, value: Document) -> None:
    """Write it whole or not at all. Raises OSError."""
    write_text(path, json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n")
