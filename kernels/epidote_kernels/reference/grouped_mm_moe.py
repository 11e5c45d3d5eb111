"""This file is about the mixture of experts that torch itself offers: what the kernel must beat.

It sorts pairs by expert with torch's own ops and multiplies with `torch._grouped_mm`, a private op
that torch's own libraries use; nothing here waits for the device. Benches and tests compare with
it; no engine runs it.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from epidote_kernels.reference.silu_mul import silu_mul


def grouped_mm_moe(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    weights: Tensor,
    experts: Tensor,
    *,
    activation: Callable[[Tensor], Tensor] = silu_mul,
    sums_by_product: bool = False,
) -> Tensor:
    """Like `fused_moe`; bf16 only on a GPU, and every expert must be one of `down`'s.

    activation       a fused one saves passes over the gate's and up's rows
    sums_by_product  weigh and add a token's rows by a batched product, with weights rounded to
                     x's dtype, and not in fp32: rows are read once and never widened in memory
    """
    num_experts = down.shape[0]
    num_tokens, top_k = experts.shape
    order = experts.flatten().argsort(stable=True)
    sorted_experts = experts.flatten()[order]
    bounds = torch.arange(num_experts, device=x.device, dtype=sorted_experts.dtype)
    ends = torch.searchsorted(sorted_experts, bounds, right=True).int()
    rows = torch._grouped_mm(x[order // top_k], gate_up.transpose(1, 2), offs=ends)
    rows = torch._grouped_mm(activation(rows), down.transpose(1, 2), offs=ends)
    parts = torch.empty_like(rows)
    parts[order] = rows
    parts = parts.view(num_tokens, top_k, -1)
    if sums_by_product:
        return torch.bmm(weights.to(x.dtype).unsqueeze(1), parts).squeeze(1)
    return (parts.float() * weights.unsqueeze(-1)).sum(1).to(x.dtype)
