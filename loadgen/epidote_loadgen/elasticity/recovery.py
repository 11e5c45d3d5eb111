"""This file is about how long a service misses its promises after the load stepped up."""

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from epidote_loadgen.records import RequestRecord
from epidote_loadgen.slo import Objective, SloTable

BUCKET_S = 5.0  # of intended sends; finer ones hold too few requests to judge a share by


@dataclass(frozen=True, kw_only=True)
class LoadStep:
    """The asked rate changed at `at_s`."""

    at_s: float
    from_rps: float
    to_rps: float


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """`after_s` None: the promise was still missed when the next step came or the run ended."""

    step: LoadStep
    slo_class: str
    after_s: float | None


def steps_of(config: Mapping[str, Any]) -> list[LoadStep]:
    """The steps that a run file's arrivals ask for, in order of time."""
    arrivals = config.get("arrivals") or {}
    found = []
    for stream in arrivals.get("streams") or [arrivals]:
        levels = (stream.get("rate") or {}).get("steps") or []
        for before, after in itertools.pairwise(levels):
            if before["rps"] != after["rps"]:
                at_s = float(stream.get("start_s") or 0.0) + after["at_s"]
                found.append(
                    LoadStep(at_s=at_s, from_rps=float(before["rps"]), to_rps=float(after["rps"]))
                )
    return sorted(found, key=lambda step: step.at_s)


def recoveries(
    records: Iterable[RequestRecord], slo: SloTable, steps: Sequence[LoadStep]
) -> list[Recovery]:
    """For each step up and SLO class: when the last bucket that missed its ratio had ended.

    A bucket misses when any objective's share of its requests lies below the ratio. 0.0: none
    did. Classes without requests after the step are left out.
    """
    kept = sorted(records, key=lambda record: record.intended_send_s)
    found = []
    for index, step in enumerate(steps):
        if step.to_rps <= step.from_rps:
            continue
        end_s = steps[index + 1].at_s if index + 1 < len(steps) else math.inf
        after = [r for r in kept if step.at_s <= r.intended_send_s < end_s]
        for slo_class in slo.classes:
            judged = [r for r in after if slo.class_of(r) is slo_class]
            if not judged:
                continue
            buckets: dict[int, list[RequestRecord]] = {}
            for record in judged:
                bucket = int((record.intended_send_s - step.at_s) // BUCKET_S)
                buckets.setdefault(bucket, []).append(record)
            missed = [
                bucket
                for bucket, members in buckets.items()
                if any(_is_missed(objective, members) for objective in slo_class.objectives)
            ]
            after_s: float | None = (max(missed) + 1) * BUCKET_S if missed else 0.0
            if missed and max(missed) == max(buckets):
                after_s = None
            found.append(Recovery(step=step, slo_class=slo_class.name, after_s=after_s))
    return found


def _is_missed(objective: Objective, records: Sequence[RequestRecord]) -> bool:
    flags = [objective.met_by(record) for record in records if objective.judges(record)]
    return sum(flags) < objective.ratio * len(flags)
