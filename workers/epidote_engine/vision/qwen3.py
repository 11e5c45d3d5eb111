"""This file is about Qwen3-VL's vision tower: learned positions, and rows from several depths.

Sources: Qwen3-VL (Bai et al. 2025, arXiv 2511.21631); DeepStack (Meng et al. 2024, arXiv
2406.04334).
"""

from collections.abc import Sequence
from math import isqrt

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


def encode_qwen3(
    patches: Tensor, grids: Sequence[Grid], weights: TowerWeights, spec: VisionSpec
) -> Tensor:
    """Rows for the language model: [sum of t·h·w / merge², out_hidden · (1 + deep-stack levels)].

    patches   [sum of t·h·w, patch_values], the media one after the other; grids: theirs, (t, h, w)
    The first `out_hidden` columns are the last layer's merged features, then one level after the
    other. Patches attend inside their frame.
    """
    device = patches.device
    x = weights.product("patch_embed.proj", patches)
    x = x + _learned_positions(grids, weights["pos_embed.weight"], spec).to(x.dtype)

    positions = [geometry.patch_positions(h, w, spec.merge) for t, h, w in grids for _ in range(t)]
    rotary = Rotary.of_positions(upload(np.concatenate(positions), device), spec)
    frames = np.asarray([h * w for t, h, w in grids for _ in range(t)], dtype=np.int64)
    packing = Packing(
        cu_seqlens=upload(geometry.cumulative(frames), device),
        max_seqlen=int(frames.max()),
    )

    levels: list[Tensor] = []
    for layer in range(spec.num_layers):
        x = _block(x, weights, f"blocks.{layer}", spec, rotary, packing)
        if layer in spec.deepstack_layers:
            level = spec.deepstack_layers.index(layer)
            levels.append(
                _merge(x, weights, f"deepstack_merger_list.{level}", spec, norm_last=True)
            )
    return torch.cat([_merge(x, weights, "merger", spec, norm_last=False), *levels], dim=1)


def _learned_positions(grids: Sequence[Grid], table: Tensor, spec: VisionSpec) -> Tensor:
    """Each patch's learned position, interpolated from a square table: [patches, hidden]."""
    side = isqrt(spec.num_positions)
    taps = [
        geometry.interpolation_taps(h, w, spec.merge, side) for t, h, w in grids for _ in range(t)
    ]
    indices = upload(np.concatenate([tap[0] for tap in taps]), table.device)
    weights = upload(np.concatenate([tap[1] for tap in taps]), table.device)
    # not embedding() and a sum: four rows a patch are megabytes of fresh memory
    return functional.embedding_bag(
        indices, table, per_sample_weights=weights.to(table.dtype), mode="sum"
    )


def _block(
    x: Tensor,
    weights: TowerWeights,
    prefix: str,
    spec: VisionSpec,
    rotary: Rotary,
    packing: Packing,
) -> Tensor:
    normed = _layer_norm(x, weights, f"{prefix}.norm1", spec)
    mixed = attend(normed, weights, f"{prefix}.attn", spec, rotary, packing)
    weight, bias = weights[f"{prefix}.norm2.weight"], weights[f"{prefix}.norm2.bias"]
    x, normed = weights.chains.add_norm(x, mixed, weight, bias, spec.norm_eps)
    inner = weights.product(f"{prefix}.mlp.linear_fc1", normed, activation=spec.activation)
    return x + weights.product(f"{prefix}.mlp.linear_fc2", inner)


def _merge(
    x: Tensor, weights: TowerWeights, prefix: str, spec: VisionSpec, *, norm_last: bool
) -> Tensor:
    """merge² neighbouring patches to one row; `norm_last` normalises the group, not the patch."""
    width = spec.hidden * spec.merge**2
    if norm_last:
        grouped = _layer_norm(x.view(-1, width), weights, f"{prefix}.norm", spec)
    else:
        grouped = _layer_norm(x, weights, f"{prefix}.norm", spec).view(-1, width)
    inner = weights.product(f"{prefix}.linear_fc1", grouped, activation="gelu")
    return weights.product(f"{prefix}.linear_fc2", inner)


def _layer_norm(x: Tensor, weights: TowerWeights, prefix: str, spec: VisionSpec) -> Tensor:
    weight, bias = weights[f"{prefix}.weight"], weights[f"{prefix}.bias"]
    return functional.layer_norm(x, (x.shape[-1],), weight, bias, spec.norm_eps)
