"""This file is about a mixture of experts in plain torch, one expert after another.

Source: Sparsely-Gated Mixture-of-Experts, Shazeer et al., ICLR 2017; SwiGLU: Shazeer, 2020.
"""

import torch
from torch import Tensor

from epidote_kernels.reference.silu_mul import silu_mul


def moe_route(logits: Tensor, top_k: int, *, renormalise: bool) -> tuple[Tensor, Tensor]:
    """(weights [T, k], experts [T, k]) of the best experts; see `ops.moe_route`."""
    shares = torch.softmax(logits.float(), -1)
    order = torch.sort(
        shares, dim=-1, descending=True, stable=True
    )  # of equal shares the lowest expert
    weights, experts = order.values[:, :top_k], order.indices[:, :top_k]
    if renormalise:
        weights = weights / weights.sum(-1, keepdim=True)
    return weights.contiguous(), experts.int()


def fused_moe(x: Tensor, gate_up: Tensor, down: Tensor, weights: Tensor, experts: Tensor) -> Tensor:
    """The weighted sum of every token's experts; see `ops.fused_moe`. Reads `experts` on the host.

    Every row that an expert returns is rounded to x's dtype; the sum is in fp32.
    """
    total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in sorted(set(experts.flatten().tolist())):
        if not 0 <= expert < down.shape[0]:
            continue  # another device's
        tokens, places = (experts == expert).nonzero(as_tuple=True)
        mixed = silu_mul(x[tokens] @ gate_up[expert].T)
        rows = mixed @ down[expert].T
        total.index_add_(0, tokens, rows.float() * weights[tokens, places].float().unsqueeze(1))
    return total.to(x.dtype)
