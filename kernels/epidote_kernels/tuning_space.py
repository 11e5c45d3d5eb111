"""This file is about what tuning tries: keys that serving meets, candidates for each, and inputs.

Inputs are random and have the sizes of current models: what a table is measured for. A candidate
that does not fit the device (shared memory, registers) drops out when it is launched.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from epidote_kernels import flash_tiles, fused_moe, paged_decode_attention, reference
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.paged_prefill_attention import paged_prefill_attention
from epidote_kernels.reference.kv_codes import encoded, head_scales
from epidote_kernels.tilings import Tiling
from epidote_kernels.vision_attention import vision_attention

HEADS, KV_HEADS = 32, 8

Prepared = tuple[Callable[[Tiling], Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One key of one kernel. `prepare` draws inputs: a call that runs a tiling on them, and what
    the twin makes of them."""

    kernel: str
    key: str
    candidates: tuple[Tiling, ...]
    prepare: Callable[[torch.device], Prepared]


def _tilings(
    sizes: dict[str, tuple[int, ...]], warps: tuple[int, ...], stages: tuple[int, ...]
) -> tuple[Tiling, ...]:
    return tuple(
        Tiling(sizes=dict(zip(sizes, values, strict=True)), num_warps=w, num_stages=s)
        for *values, w, s in itertools.product(*sizes.values(), warps, stages)
    )


def problems() -> Iterator[Problem]:
    """Every key that a table has an entry for."""
    for dim, code in ((64, None), (128, None), (256, None), (128, torch.float8_e4m3fn)):
        yield _decode(dim, code)
    for kernel, dim, rows in (
        *(("paged_prefill", 128, rows) for rows in (16, 32, 64, 128)),
        *(("paged_prefill", dim, 128) for dim in (64, 256)),
        *(("vision_attention", dim, rows) for dim in (64, 80, 128) for rows in (64, 128)),
    ):
        yield _flash(kernel, dim, rows)
    for kernel, code, rows in itertools.product(
        ("moe_gate_up", "moe_down"), (None, torch.int8), fused_moe.ROWS
    ):
        yield _experts(kernel, rows, code)


def _decode(dim: int, code: torch.dtype | None) -> Problem:
    wide = max(1, 16384 // (dim * (2 if code is None else 1)))  # tokens of a 16 KiB tile

    def prepare(device: torch.device) -> Prepared:
        lengths = [4096 + 512 * (row % 4) for row in range(64)]
        batch = paged_batch(
            lengths, num_kv_heads=KV_HEADS, dim=dim, dtype=torch.bfloat16, device=device
        )
        caches = (batch.k_cache, batch.v_cache)
        scales: dict[str, Any] = {}
        if code is not None:
            scale = head_scales(batch.k_cache[:64], code)
            caches = (encoded(batch.k_cache, scale, code), encoded(batch.v_cache, scale, code))
            scales = {"k_scale": scale, "v_scale": scale}
        q = torch.randn(len(lengths), HEADS, dim, device=device).bfloat16()
        call = (q, *caches, batch.block_tables, batch.seq_lens)
        want = reference.paged_decode_attention(*call, scale=dim**-0.5, **scales)
        kernel = partial(
            paged_decode_attention.paged_decode_attention, *call, scale=dim**-0.5, **scales
        )
        return lambda tiling: kernel(tiling=tiling), want

    return Problem(
        kernel="paged_decode",
        key=paged_decode_attention.tiling_key(dim, 2 if code is None else 1, 2),
        candidates=_tilings(
            {"BLOCK_TOKENS": (wide // 2, wide, wide * 2), "programs": (1, 2, 3, 4)},
            warps=(4, 8),
            stages=(4, 5, 6),
        ),
        prepare=prepare,
    )


def _flash(kernel: str, dim: int, rows: int) -> Problem:
    length = 8192 if rows == 128 else rows

    def prepare(device: torch.device) -> Prepared:
        if kernel == "vision_attention":
            count = max(1, 16384 // max(length, 64) // 4)
            bounds = cumulative([length] * count, device)
            qkv = torch.randn(count * length, 3, 16, dim, device=device).bfloat16().unbind(1)
            sized: dict[str, Any] = {"scale": dim**-0.5, "max_seqlen": length}
            want = reference.vision_attention(qkv[0], qkv[1], qkv[2], bounds, **sized)
            tower = partial(vision_attention, qkv[0], qkv[1], qkv[2], bounds, **sized)
            return lambda tiling: tower(tiling=tiling), want
        seqs = 1 if rows == 128 else 16
        seen = length + (0 if rows == 128 else 4096)  # short chunks come after a prefix
        batch = paged_batch(
            [seen] * seqs, num_kv_heads=KV_HEADS, dim=dim, dtype=torch.bfloat16, device=device
        )
        q = torch.randn(seqs * length, HEADS, dim, device=device).bfloat16()
        bounds = cumulative([length] * seqs, device)
        call = (q, batch.k_cache, batch.v_cache, batch.block_tables, bounds, batch.seq_lens)
        sized = {"scale": dim**-0.5, "max_q_len": length}
        want = reference.paged_prefill_attention(*call, **sized)
        chunks = partial(paged_prefill_attention, *call, **sized)
        return lambda tiling: chunks(tiling=tiling), want

    tile_rows = tuple(n for n in (16, 32, 64, 128) if n <= rows and n >= min(rows, 64))
    return Problem(
        kernel=kernel,
        key=flash_tiles.tiling_key(dim, 2, rows),
        candidates=_tilings(
            {"BLOCK_ROWS": tile_rows, "BLOCK_KEYS": (32, 64, 128)}, warps=(4, 8), stages=(2, 3, 4)
        ),
        prepare=prepare,
    )


def _experts(kernel: str, rows: int, code: torch.dtype | None) -> Problem:
    """Qwen3-30B-A3B's experts; the other product keeps its default. int8 stands for both codes."""
    num_experts, top_k, hidden, inner = 128, 8, 2048, 768
    tokens = 8 if rows == 16 else rows * num_experts // top_k

    def prepare(device: torch.device) -> Prepared:
        x = torch.randn(tokens, hidden, device=device).bfloat16()
        gate_up = torch.randn(num_experts, 2 * inner, hidden, device=device).mul(0.02).bfloat16()
        down = torch.randn(num_experts, hidden, inner, device=device).mul(0.02).bfloat16()
        shares = torch.rand(tokens, num_experts, device=device).topk(top_k)
        weights, experts = shares.values.contiguous(), shares.indices.int().contiguous()
        held, scales = (gate_up, down), None
        if code is not None:
            (first, first_scales), (second, second_scales) = (
                reference.quantize_weight(weight.flatten(0, 1), code) for weight in held
            )
            held = first.view_as(gate_up), second.view_as(down)
            scales = (
                first_scales.view(gate_up.shape[:2]),
                second_scales.view(down.shape[:2]),
            )

        def run(tiling: Tiling) -> Tensor:
            other = "moe_down" if kernel == "moe_gate_up" else "moe_gate_up"
            rest = fused_moe.default_tiling(other, 2, rows, codes=code is not None)
            both = (tiling, rest) if kernel == "moe_gate_up" else (rest, tiling)
            return fused_moe.fused_moe(x, *held, weights, experts, scales=scales, tilings=both)

        return run, reference.fused_moe(x, *held, weights, experts, scales=scales)

    return Problem(
        kernel=kernel,
        key=fused_moe.tiling_key(2, rows, codes=code is not None),
        candidates=_tilings(
            {
                "BLOCK_ROWS": (rows,),
                "BLOCK_COLUMNS": (32, 64, 128, 256) if kernel == "moe_down" else (32, 64, 128),
                "BLOCK_DEPTH": (64, 128) if code is None else (64, 128, 256),
            },
            warps=(4, 8),
            stages=(3, 4),
        ),
        prepare=prepare,
    )
