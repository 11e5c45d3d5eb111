"""This file is about compiling before the first request: every op once at every shape bucket.

Triton compiles a kernel when it is first launched with new constants or new number types, which
takes tenths of a second: minutes, if the first users of every batch size wait for it. The kernels'
constants depend on the model's sizes and on a few buckets (rows of a tile, weights even or not),
never on a batch's exact size, so that a few dozen small launches cover what serving will ask.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from epidote_kernels import ops

logger = logging.getLogger(__name__)

ROWS = (1, 17, 33, 65, 512)  # a chunk's length in each bucket of tile rows
SEQS = (1, 2)

Draw = Callable[..., Tensor]  # sizes → random numbers of the model's dtype


def bound(op: Callable[..., Any], *arguments: Any, **keywords: Any) -> Callable[[], Any]:
    """The call, to be made later."""
    return partial(op, *arguments, **keywords)


@dataclass(frozen=True, kw_only=True)
class ModelShapes:
    """What a model asks of the kernels.

    kv_dtype     int8 or float8_e4m3fn where the cache holds codes, else `dtype`
    inner        of the dense layers' SwiGLU; 0: none
    num_experts, top_k, expert_inner   of a mixture of experts; 0: none
    expert_codes   int8 or float8_e4m3fn where experts' weights are codes; None: they are not
    num_slots      of this device, for experts in slots (`ops.replica_slots`); 0: none
    renormalises   whether the weights of a token's experts are divided by their sum
    vision_heads, vision_dim           of a vision tower; 0: none
    qk_norm      whether heads are normalised before the rotation
    media_spans  whether pictures are read in both directions
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    hidden: int
    inner: int
    block_size: int
    dtype: torch.dtype
    kv_dtype: torch.dtype
    num_experts: int = 0
    top_k: int = 0
    expert_inner: int = 0
    expert_codes: torch.dtype | None = None
    num_slots: int = 0
    renormalises: bool = True
    vision_heads: int = 0
    vision_dim: int = 0
    qk_norm: bool = False
    media_spans: bool = False


def warm_up(shapes: ModelShapes, device: torch.device) -> int:
    """Launch every op that `shapes` needs once per bucket; returns how many launches were made.

    Call it once a process and device, before CUDA graphs are captured. Needs a few megabytes.
    Where no kernel computes, the twins run: that costs milliseconds and changes nothing.

    Raises:
        ValueError: `shapes` has sizes that no kernel takes, named by the op that refuses them.
    """
    start_s = time.monotonic()
    count = 0
    with torch.inference_mode():
        for launch in _launches(shapes, device):
            launch()
            count += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
    fields = {"launches": count, "took_s": round(time.monotonic() - start_s, 3)}
    logger.info("kernels warmed up", extra=fields)
    return count


def _launches(shapes: ModelShapes, device: torch.device) -> Iterator[Callable[[], Any]]:
    """Every call to make, with inputs of its own; values do not matter, so they are random."""

    def draw(*size: int) -> Tensor:
        return torch.randn(size, device=device).to(shapes.dtype)

    def integers(*values: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device)

    yield from _norms_and_activations(shapes, draw)
    yield from _attention(shapes, draw, integers, device)
    if shapes.vision_heads:
        for rows in ROWS:
            qkv = draw(rows, 3, shapes.vision_heads, shapes.vision_dim).unbind(1)
            bounds = integers(0, rows)
            yield bound(ops.vision_attention, *qkv, bounds, scale=1.0, max_seqlen=rows)
    if shapes.num_experts:
        yield from _experts(shapes, draw)


def _norms_and_activations(shapes: ModelShapes, draw: Draw) -> Iterator[Callable[[], Any]]:
    for tokens in SEQS:
        x, weight = draw(tokens, shapes.hidden), draw(shapes.hidden)
        yield bound(ops.rms_norm, x, weight, 1e-6)
        yield bound(ops.add_rms_norm, x, x, weight, 1e-6)
        if shapes.inner:
            yield bound(ops.silu_mul, draw(tokens, 2 * shapes.inner))
        if shapes.qk_norm:  # apart, too, for an engine that normalises before it rotates
            heads = draw(tokens, shapes.num_heads, shapes.head_dim)
            yield bound(ops.rms_norm, heads, draw(shapes.head_dim), 1e-6)


def _attention(
    shapes: ModelShapes, draw: Draw, integers: Callable[..., Tensor], device: torch.device
) -> Iterator[Callable[[], Any]]:
    heads, kv_heads, dim = shapes.num_heads, shapes.num_kv_heads, shapes.head_dim
    blocks = ROWS[-1] // shapes.block_size + 2
    caches = draw(2, blocks, shapes.block_size, kv_heads, dim).to(shapes.kv_dtype).unbind()
    scales: dict[str, Any] = {}
    if shapes.kv_dtype is not shapes.dtype:
        ones = torch.ones(kv_heads, device=device)
        scales = {"k_scale": ones, "v_scale": ones}
    norms: list[dict[str, Any]] = [{}]
    if shapes.qk_norm:
        norms.append({"q_norm": draw(dim), "k_norm": draw(dim), "eps": 1e-6})
    table = torch.arange(blocks, dtype=torch.int32, device=device)
    for num_seqs in SEQS:
        qkv = draw(num_seqs, heads + 2 * kv_heads, dim)
        q, k, v = torch.split(qkv, [heads, kv_heads, kv_heads], 1)
        angles = torch.rand(num_seqs, dim // 2, device=device)
        rope = (angles.cos(), angles.sin(), *caches, torch.arange(num_seqs, device=device))
        for norm in norms:
            yield bound(ops.rope_kv_write, q, k, v, *rope, **scales, **norm)
        tables = table.expand(num_seqs, -1).contiguous()
        lens = integers(*[shapes.block_size] * num_seqs)
        yield bound(ops.paged_decode_attention, q, *caches, tables, lens, scale=1.0, **scales)
    for rows, spans in itertools.product(ROWS, (False, True)[: 1 + shapes.media_spans]):
        paged = (draw(rows, heads, dim), *caches, table.unsqueeze(0), integers(0, rows))
        sized = {"scale": 1.0, "max_q_len": rows, **scales}
        sized["span_ends"] = integers(*[0] * rows) if spans else None
        yield bound(ops.paged_prefill_attention, *paged, integers(rows), **sized)


def _experts(shapes: ModelShapes, draw: Draw) -> Iterator[Callable[[], Any]]:
    """One batch per size of tile: mean loads of 1, 17, 33 and 65 rows an expert."""
    hidden, inner, experts = shapes.hidden, shapes.expert_inner, shapes.num_experts
    held = shapes.num_slots or experts
    # one expert's weights seen as every expert's: a real model's would need gigabytes
    gate_up = draw(1, 2 * inner, hidden).expand(held, -1, -1)
    down = draw(1, hidden, inner).expand(held, -1, -1)
    scales = None
    if shapes.expert_codes is not None:
        gate_up = draw(1, 2 * inner, hidden).to(shapes.expert_codes).expand(held, -1, -1)
        down = draw(1, hidden, inner).to(shapes.expert_codes).expand(held, -1, -1)
        ones = torch.ones(held, max(2 * inner, hidden), device=down.device)
        scales = ones[:, : 2 * inner].contiguous(), ones[:, :hidden].contiguous()
    table = torch.ones((experts, 2), dtype=torch.int32, device=down.device)

    for mean in (1, 17, 33, 65):
        tokens = -(-mean * held // shapes.top_k)
        x, logits = draw(tokens, hidden), draw(tokens, experts)

        def launch(x: Tensor = x, logits: Tensor = logits) -> None:
            weights, chosen = ops.moe_route(logits, shapes.top_k, renormalise=shapes.renormalises)
            if shapes.num_slots:
                chosen = ops.replica_slots(chosen, table)
            if x.is_cuda:  # past the op, which wants whole weights; no twin needs warming
                from epidote_kernels.fused_moe import fused_moe

                fused_moe(x, gate_up, down, weights, chosen, scales=scales)

        yield launch
