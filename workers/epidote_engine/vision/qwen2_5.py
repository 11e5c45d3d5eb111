"""This file is about Qwen2.5-VL's vision tower: most layers attend inside small windows only.

Source: Qwen2.5-VL (Bai et al. 2025, arXiv 2502.13923), section 2.1.1.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from epidote_engine.vision import geometry
from epidote_engine.vision.attention import Packing, Rotary, attend
from epidote_engine.vision.spec import VisionSpec
from epidote_engine.vision.tower_weights import TowerWeights
from epidote_engine.vision.upload import upload

Grid = tuple[int, int, int]


def encode_qwen2_5(
    patches: Tensor, grids: Sequence[Grid], weights: TowerWeights, spec: VisionSpec
) -> Tensor:
    """Rows for the language model: [sum of t·h·w / merge², out_hidden], in patch order.

    patches   [sum of t·h·w, patch_values], the media one after the other; grids: theirs, (t, h, w)
    Merge groups are sorted by window before the first layer and back after the last, so that
    windows and whole frames are both contiguous pieces of the packed sequence.
    """
    device, group = patches.device, spec.merge**2
    order, windows, frames, positions = _layout(grids, spec)
    in_windows = upload(order, device)

    x = weights.product("patch_embed.proj", patches)
    x = x.view(-1, group, spec.hidden)[in_windows].view(-1, spec.hidden)
    sorted_positions = positions.reshape(-1, group, 2)[order].reshape(-1, 2)
    rotary = Rotary.of_positions(upload(sorted_positions, device), spec)
    by_window, by_frame = _packing(windows, device), _packing(frames, device)

    for layer in range(spec.num_layers):
        packing = by_frame if layer in spec.full_attention_layers else by_window
        x = _block(x, weights, f"blocks.{layer}", spec, rotary, packing)

    merged = _rms_norm(x, weights["merger.ln_q.weight"], spec).view(-1, group * spec.hidden)
    merged = weights.product("merger.mlp.0", merged, activation="gelu")
    merged = weights.product("merger.mlp.2", merged)
    out = torch.empty_like(merged)
    out[in_windows] = merged
    return out


def _block(
    x: Tensor,
    weights: TowerWeights,
    prefix: str,
    spec: VisionSpec,
    rotary: Rotary,
    packing: Packing,
) -> Tensor:
    normed = _rms_norm(x, weights[f"{prefix}.norm1.weight"], spec)
    mixed = attend(normed, weights, f"{prefix}.attn", spec, rotary, packing)
    x, normed = weights.chains.add_norm(
        x, mixed, weights[f"{prefix}.norm2.weight"], None, spec.norm_eps
    )
    gate = weights.product(f"{prefix}.mlp.gate_proj", normed, activation=spec.activation)
    up = weights.product(f"{prefix}.mlp.up_proj", normed)
    return x + weights.product(f"{prefix}.mlp.down_proj", gate * up)


def _rms_norm(x: Tensor, weight: Tensor, spec: VisionSpec) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), weight, spec.norm_eps)


def _packing(lengths: geometry.IntArray, device: torch.device) -> Packing:
    cumulative = upload(geometry.cumulative(lengths), device)
    return Packing(cu_seqlens=cumulative, max_seqlen=int(lengths.max()))


def _layout(
    grids: Sequence[Grid], spec: VisionSpec
) -> tuple[geometry.IntArray, geometry.IntArray, geometry.IntArray, geometry.IntArray]:
    """(order of merge groups, patches per window, patches per frame, patch positions)."""
    side, group = max(1, spec.window // spec.merge // spec.patch), spec.merge**2
    orders, windows, frames, positions = [], [], [], []
    first = 0
    for t, h, w in grids:
        order, sizes = geometry.window_order(h // spec.merge, w // spec.merge, side)
        position = geometry.patch_positions(h, w, spec.merge)
        for _ in range(t):
            orders.append(order + first)
            windows.append(sizes * group)
            positions.append(position)
            first += len(order)
        frames.extend([h * w] * t)
    return (
        np.concatenate(orders),
        np.concatenate(windows),
        np.asarray(frames, dtype=np.int64),
        np.concatenate(positions),
    )
