"""This file is about what the planner assumes of a worker that nobody has measured yet.

Cautious on purpose: the planner corrects a profile from what the workers report, and a fleet that
starts a little too large misses no promise while it learns.
"""

from epidote_operator.spec.pool import Device
from epidote_planner.performance import (
    DecodeCost,
    EncodeCost,
    PerformanceProfile,
    PrefillCost,
    TransferCost,
)

# A 7-9 billion parameter model on an 80 GB GPU of the A100 class: 16 GB of weights read at
# 1.6 TB/s for each decode step, 2·8e9 operations a prompt token at half of 312 TFLOP/s.
GPU_GUESS = PerformanceProfile(
    name="guess-8b-gpu",
    provenance="A guess for an 8B model on one A100-class GPU; set spec.performance.",
    encode=EncodeCost(base_s=0.01, per_image_s=0.05, per_token_s=2e-5, max_images=8),
    prefill=PrefillCost(base_s=0.01, per_token_s=1e-4, max_tokens=2048),
    decode=DecodeCost(
        base_s=0.012,
        per_sequence_s=1e-4,
        per_context_token_s=8e-8,
        max_sequences=256,
        kv_tokens=300_000,
    ),
    transfer=TransferCost(base_s=0.005, per_image_token_s=2.5e-7, per_kv_token_s=1e-6),
    switch_s=0.2,
    reload_switch_s=0.7,
    startup_s=120.0,
)

# The 2.8 M parameter demo model on one core; see workers/epidote_workers/demo_model/README.md.
CPU_GUESS = PerformanceProfile(
    name="guess-demo-cpu",
    provenance="A guess for the demo model on one CPU core; set spec.performance.",
    encode=EncodeCost(base_s=0.005, per_image_s=0.01, max_images=8),
    prefill=PrefillCost(base_s=0.01, per_token_s=1e-4, max_tokens=2048),
    decode=DecodeCost(base_s=0.01, per_sequence_s=1e-3, max_sequences=64, kv_tokens=50_000),
    transfer=TransferCost(base_s=0.005, per_image_token_s=1e-6, per_kv_token_s=1e-6),
    switch_s=0.2,
    reload_switch_s=0.7,
    startup_s=20.0,
)


def default_profile(device: Device) -> PerformanceProfile:
    """The guess for workers of that kind."""
    return CPU_GUESS if device is Device.CPU else GPU_GUESS
