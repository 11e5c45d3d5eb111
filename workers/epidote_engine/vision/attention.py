"""This file is about attention inside pictures: rotary positions and packed sequences."""

from dataclasses import dataclass

import torch
from torch import Tensor

from epidote_engine.vision.spec import VisionSpec
from epidote_engine.vision.tower_weights import TowerWeights
from epidote_kernels import ops


@dataclass(frozen=True, kw_only=True)
class Packing:
    """Where one packed sequence is cut: patches attend only inside their own piece."""

    cu_seqlens: Tensor  # int32 [pieces + 1], on the device
    max_seqlen: int  # known on the host: no synchronisation


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Cosines and sines of each patch's angles: float32 [patches, 1, head_dim / 2]."""

    cos: Tensor
    sin: Tensor

    @classmethod
    def of_positions(cls, positions: Tensor, spec: VisionSpec) -> "Rotary":
        """`positions` int64 [patches, 2]: the row turns the first half of the pairs, the column
        the second."""
        axis_dim = spec.head_dim // 2
        steps = torch.arange(0, axis_dim, 2, dtype=torch.float32, device=positions.device)
        frequencies = 1.0 / spec.rope_theta ** (steps / axis_dim)
        angles = (positions[..., None].float() * frequencies).flatten(1).unsqueeze(1)
        return cls(cos=angles.cos(), sin=angles.sin())


def attend(
    x: Tensor,
    weights: TowerWeights,
    prefix: str,
    spec: VisionSpec,
    rotary: Rotary,
    packing: Packing,
) -> Tensor:
    """Multi-head attention of `x` [patches, hidden], already normalised; returns like `x`."""
    qkv = weights.product(f"{prefix}.qkv", x)
    query, key = weights.chains.turned(qkv, rotary.cos, rotary.sin, spec.num_heads)
    mixed = ops.vision_attention(
        query,
        key,
        qkv.view(-1, 3, spec.num_heads, spec.head_dim)[:, 2],
        packing.cu_seqlens,
        scale=spec.head_dim**-0.5,
        max_seqlen=packing.max_seqlen,
    )
    return weights.product(f"{prefix}.proj", mixed.flatten(1))
