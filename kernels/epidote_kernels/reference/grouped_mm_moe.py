"""This file is about the mixture of experts that torch itself offers: what the kernel must beat.

It sorts pairs by expert with torch's own ops and multiplies with `torch._grouped_mm`, a private op
that torch's own libraries use; nothing here waits for the device. Benches and tests compare with
it; no engine runs it.
"""

import torch
from torch import Tensor

from epidote_kernels.reference.silu_mul import silu_mul


def grouped_mm_moe(
    x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, experts: Tensor
) -> Tensor:
    """Like `fused_moe`; bf16 only on a GPU, and every expert must be one of `down`'s."""
    num_experts = down.shape[0]
    top_k = experts.shape[1]
    order = experts.flatten().argsort(stable=True)
    sorted_experts = experts.flatten()[order]
    bounds = torch.arange(num_experts, device=x.device, dtype=sorted_experts.dtype)
    ends = torch.searchsorted(sorted_experts, bounds, right=True).int()
    rows = torch._grouped_mm(x[order // top_k], gate_up.transpose(1, 2), offs=ends)
    rows = torch._grouped_mm(silu_mul(rows), down.transpose(1, 2), offs=ends)
    parts = torch.empty_like(rows)
    parts[order] = rows
    parts = parts.view(*experts.shape, -1)
    return (parts.float() * weights.unsqueeze(-1)).sum(1).to(x.dtype)
