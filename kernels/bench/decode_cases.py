"""This file is about a full decode step of the engine against its floor: one pass over the weights
that it needs and the live KV. Dense and with experts, whole numbers and codes of one byte.
"""

import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench_models import save_expert_model, save_text_model
from device_limits import Limits, wait
from engine_cases import REAL, TOY, engine_of, request_of

from epidote_engine.engine import Engine
from epidote_engine.events import TokensOut


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What is unlike the plain dense model in the device's number type."""

    has_experts: bool = False
    quantization: str | None = None
    kv_cache_dtype: str = "auto"


def decode_steps(
    folder: Path, device: str, limits: Limits, variant: Variant, *, toy: bool
) -> dict[str, Any]:
    """Time of a step, its bytes, and the percent of the floor that these set."""
    scale = TOY if toy else REAL
    save = save_expert_model if variant.has_experts else save_text_model
    path = save(folder / "text", toy=toy)
    # the first to be prefilled decode while the others still wait for their turn
    new = scale.num_steps + 2 * scale.num_seqs + 20
    per_seq = scale.context + new
    engine = engine_of(
        path, device, num_kv_blocks=scale.num_seqs * (per_seq // 16 + 2),
        max_num_seqs=scale.num_seqs, max_batched_tokens=8192, chunk_tokens=4096,
        max_model_len=None if toy else per_seq + 64, quantization=variant.quantization,
        kv_cache_dtype=variant.kv_cache_dtype,
        **({"dtype": "float16"} if toy and variant.quantization else {}),
    )  # fmt: skip
    if variant.has_experts:
        # only now: decode steps that were captured before do not count, prompts do
        engine._parts.runner.model.count_expert_tokens()
    rng = Random(0)
    for number in range(scale.num_seqs):
        engine.add(request_of(rng, f"{number}", scale.context, new))
    began: set[str] = set()
    while len(began) < scale.num_seqs:
        began |= {e.request_id for e in engine.step() if isinstance(e, TokensOut)}
    asked = experts_asked(engine, scale.num_seqs)
    for _ in range(3):
        engine.step()
    times = []
    wait(device)
    for _ in range(scale.num_steps):
        start_s = time.perf_counter()
        engine.step()
        times.append(time.perf_counter() - start_s)
    running = engine._scheduler.running
    assert len(running) == scale.num_seqs, "every sequence decodes to the end of the measurement"
    step_s = statistics.median(times)
    tokens = sum(len(seq.token_ids) for seq in running)
    context = tokens / scale.num_seqs - len(times) / 2  # in the middle of the measurement
    num_bytes = weight_bytes(engine, asked) + kv_bytes(engine, scale.num_seqs * context)
    floor_s = num_bytes / limits.copy_bytes_per_s
    found = {
        "weights": variant.quantization or type_name(engine._parts.runner.model.dtype),
        "kv": type_name(engine.kv_pool.tensor.dtype),
        "layers": engine._spec.decoder.num_layers,
        "sequences": scale.num_seqs,
        "context_tokens": context,
        "step_s": step_s,
        "slowest_step_s": max(times),
        "tokens_per_s": scale.num_seqs / step_s,
        "bytes": num_bytes,
        "floor_s": floor_s,
        "percent_of_floor": 100 * floor_s / step_s,
    }
    if asked:
        found["experts_asked_per_layer"] = sum(asked) / len(asked)
    return found


def type_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def experts_asked(engine: Engine, num_seqs: int) -> list[float]:
    """How many experts of each layer a step of `num_seqs` tokens is likely to ask; [] if dense.

    From the share of the prompts' tokens that asked each: an expert with share p is left alone by
    (1 - p) ** num_seqs of the steps.
    """
    experts = engine._spec.decoder.experts
    if experts is None:
        return []
    found = []
    for loads in engine.expert_tokens() or ():
        tokens = sum(loads) / experts.per_token
        found.append(sum(1 - (1 - load / tokens) ** num_seqs for load in loads))
    return found


def weight_bytes(engine: Engine, asked: list[float]) -> float:
    """Bytes of weights that a step reads: of experts, those that are asked."""
    decoder, config = engine._spec.decoder, engine.config
    heads = (2 * decoder.num_heads + 2 * decoder.num_kv_heads) * decoder.head_dim
    num_dense = decoder.num_layers - len(asked)
    weights: float = decoder.num_layers * heads * decoder.hidden
    weights += num_dense * 3 * decoder.intermediate * decoder.hidden
    if decoder.experts is not None:
        expert = 3 * decoder.experts.intermediate * decoder.hidden
        router = decoder.experts.num_experts * decoder.hidden
        weights += sum(expert * number + router for number in asked)
    weights += decoder.vocab * decoder.hidden  # the head; the embedding gives single rows
    width = 1 if config.quantization else engine._parts.runner.model.dtype.itemsize
    return weights * width


def kv_bytes(engine: Engine, live_tokens: float) -> float:
    """Bytes of every live key and value."""
    decoder = engine._spec.decoder
    token = 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim
    return live_tokens * token * engine.kv_pool.tensor.element_size()
