"""This file is about the service of the cluster demo: a small pool that a small load moves.

The node pretends its GPUs and the demo model computes on the CPU, so one worker's speed is given
by a profile: that of a card on which a picture takes 0.8 s to encode. What the planner decides
follows from it and from the arrivals that it measures.
"""

from typing import Any

from epidote_operator.kube import paths

NAME, NAMESPACE = "demo", "default"
GPUS = 5

SPEC: dict[str, Any] = {
    "model": {"uri": "builtin://demo", "maxModelLength": 1024, "dtype": "Float32"},
    "pool": {"minWorkers": 4, "maxWorkers": 8, "gpuBudget": GPUS, "kvBlocks": 512},
    "slo": {"ttftMilliseconds": 15_000, "tpotMilliseconds": 400, "attainmentPercent": 90},
    "scaling": {
        "tickSeconds": 2,
        "shrinkWindowSeconds": 20,
        "dwellSeconds": 3,
        "switchCooldownSeconds": 3,
        "coldStartSeconds": 5,
        "drainDeadlineSeconds": 60,
        "startDeadlineSeconds": 600,
        # No trend: a load that jumps and stays is no ramp to be ahead of.
        "forecast": {
            "smoothingSeconds": 6,
            "trendSeconds": 86_400,
            "seasonSeconds": 0,
            "burstSigmasPercent": 0,
        },
    },
    "performance": {
        "name": "pretended-card",
        "provenance": "made up for the demo, so that a small load moves a small pool",
        "encode": {"perImageMicroseconds": 800_000},
        "prefill": {"baseMicroseconds": 10_000, "perTokenNanoseconds": 100_000},
        "decode": {
            "baseMicroseconds": 40_000,
            "perSequenceNanoseconds": 40_000_000,
            "maxSequences": 64,
        },
        "startupSeconds": 20,
        "reloadSwitchMilliseconds": 700,
    },
}


def demo_manifest() -> dict[str, Any]:
    """The resource to apply."""
    return {
        "apiVersion": paths.API_VERSION,
        "kind": "MultimodalService",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": SPEC,
    }
