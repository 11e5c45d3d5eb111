"""This file is about the figures of elasticity in a run's document."""

from typing import Any

from epidote_loadgen.elasticity.gpu_time import gpu_seconds
from epidote_loadgen.elasticity.least_work import least_gpu_seconds
from epidote_loadgen.elasticity.recovery import recoveries, steps_of
from epidote_loadgen.measures.summary import TOTAL, summarise
from epidote_loadgen.records import RunResult
from epidote_loadgen.simulate.profiles import load_profile
from epidote_loadgen.slo import SloTable


def elasticity(result: RunResult, slo: SloTable) -> dict[str, Any]:
    """GPU time, its share a good request, the least possible, and recoveries; null: not known."""
    watch_config = result.config.get("watch") or {}
    used = gpu_seconds(
        result.watch.get("samples") or [],
        duration_s=result.duration_s,
        gpus_per_worker=float(watch_config.get("gpus_per_worker") or 1.0),
    )
    num_good = summarise(result.records, slo)[TOTAL].num_good
    least: float | None = None
    if watch_config.get("profile"):
        least = least_gpu_seconds(result.records, slo, load_profile(watch_config["profile"]))
    return {
        "gpu_seconds": _short(used),
        "gpu_seconds_per_good_request": _short(used / num_good if used and num_good else None),
        "lower_bound_gpu_seconds": _short(least),
        "times_lower_bound": _short(used / least if used and least else None),
        "recoveries": [
            {
                "at_s": found.step.at_s,
                "from_rps": found.step.from_rps,
                "to_rps": found.step.to_rps,
                "slo_class": found.slo_class,
                "after_s": found.after_s,
            }
            for found in recoveries(result.records, slo, steps_of(result.config))
        ],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
