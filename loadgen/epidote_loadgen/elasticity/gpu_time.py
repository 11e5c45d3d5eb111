"""This file is about the GPU time that a fleet held during a run, from what was watched."""

from collections.abc import Mapping, Sequence
from typing import Any


def num_workers(sample: Mapping[str, Any]) -> int:
    """Workers of every role and state but failed: one that starts or drains holds its GPU too."""
    return sum(
        int(count)
        for states in sample["workers"].values()
        for state, count in states.items()
        if state != "failed"
    )


def gpu_seconds(
    samples: Sequence[Mapping[str, Any]], *, duration_s: float, gpus_per_worker: float = 1.0
) -> float | None:
    """The fleet's size over [0, duration_s]; each sample holds until the next, the first from 0.

    None without samples: nothing was watched.
    """
    if not samples:
        return None
    total = 0.0
    for index, sample in enumerate(samples):
        start_s = 0.0 if index == 0 else min(duration_s, max(0.0, float(sample["at_s"])))
        is_last = index == len(samples) - 1
        end_s = duration_s if is_last else float(samples[index + 1]["at_s"])
        total += num_workers(sample) * max(0.0, min(end_s, duration_s) - start_s)
    return total * gpus_per_worker
