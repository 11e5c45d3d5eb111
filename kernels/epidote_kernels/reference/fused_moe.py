"""This file is about a mixture of experts in plain torch, one expert after another.

Source: Sparsely-Gated Mixture-of-Experts, Shazeer et al., ICLR 2017; SwiGLU: Shazeer, 2020.
"""

import torch
from torch import Tensor

from epidote_kernels.reference.quantized_linear import quantized_linear
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


def fused_moe(
    x: Tensor,
    gate_up: Tensor,
    down: Tensor,
    weights: Tensor,
    experts: Tensor,
    *,
    scales: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """The weighted sum of every token's experts; see `ops.fused_moe`. Reads `experts` on the host.

    Every row that an expert returns is rounded to x's dtype; the sum is in fp32.
    """

    def product(rows: Tensor, weight: Tensor, which: int, expert: int) -> Tensor:
        if scales is None:
            return rows @ weight[expert].T
        return quantized_linear(rows, weight[expert], scales[which][expert])

    total = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
    for expert in sorted(set(experts.flatten().tolist())):
        if not 0 <= expert < down.shape[0]:
            continue  # another device's
        tokens, places = (experts == expert).nonzero(as_tuple=True)
        rows = product(silu_mul(product(x[tokens], gate_up, 0, expert)), down, 1, expert)
        total.index_add_(0, tokens, rows.float() * weights[tokens, places].float().unsqueeze(1))
    return total.to(x.dtype)
