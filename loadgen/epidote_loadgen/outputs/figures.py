"""This file is about a summary as plain JSON values: counts, rates, quantiles, scores."""

from typing import Any

from epidote_loadgen.measures.histogram import Histogram
from epidote_loadgen.measures.summary import Summary

QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
LATENCIES = ("ttft", "tpot", "itl", "e2e", "lateness")


def latency(histogram: Histogram) -> dict[str, float | int]:
    """Seconds; quantiles are within 0.8 % (see `Histogram`). Zeros of nothing."""
    found: dict[str, float | int] = {
        "count": histogram.count,
        "mean_s": round(histogram.mean_s, 6),
        "min_s": round(histogram.min_s, 6) if histogram.count else 0.0,
        "max_s": round(histogram.max_s, 6),
    }
    return found | {f"{name}_s": round(histogram.quantile(q), 6) for name, q in QUANTILES.items()}


def figures(summary: Summary, *, duration_s: float) -> dict[str, Any]:
    """Rates are over `duration_s`, the whole run with its tail."""
    span_s = max(duration_s, 1e-9)
    return {
        "num_requests": summary.num_requests,
        "num_ok": summary.num_ok,
        "num_judged": summary.num_judged,
        "num_good": summary.num_good,
        "attainment": round(summary.attainment, 6),
        "completed_rps": round(summary.num_ok / span_s, 4),
        "goodput_rps": round(summary.num_good / span_s, 4),
        "prompt_tokens": summary.prompt_tokens,
        "cached_tokens": summary.cached_tokens,
        "output_tokens": summary.output_tokens,
        "output_tokens_per_s": round(summary.output_tokens / span_s, 3),
        "by_status": {status.value: count for status, count in sorted(summary.by_status.items())},
        "by_error": dict(summary.by_error.most_common(20)),
        "by_cache": dict(sorted(summary.by_cache.items())),
        "num_scored": summary.num_scored,
        "num_correct": summary.num_correct,
        **{name: latency(getattr(summary, name)) for name in LATENCIES},
    }
