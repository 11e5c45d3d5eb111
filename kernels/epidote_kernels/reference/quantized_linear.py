"""This file is about matrix products with weights in 8 bits, in plain torch.

Source of one scale per output: LLM.int8(), Dettmers et al., NeurIPS 2022.
"""

import torch
from torch import Tensor

LARGEST = {torch.int8: 127.0, torch.float8_e4m3fn: 448.0}  # the numbers each type ends at


def quantize_weight(
    weight: Tensor, dtype: torch.dtype, most: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """([N, K] in `dtype`, scales [N] fp32) of a weight [N, K]: see `ops.quantize_weight`."""
    if most is None:
        most = (weight.abs().amax(1) if weight.numel() else weight.new_zeros(len(weight))).float()
    scales = torch.where(most > 0, most / LARGEST[dtype], 1.0)
    values = weight / scales[:, None]  # the only copy that is wider than the weight
    if dtype is torch.int8:
        values.round_().clamp_(-127, 127)
    return values.to(dtype), scales


def quantized_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """`x @ (weight · scales).T`, summed in fp32; see `ops.quantized_linear`."""
    return ((x.float() @ weight.float().t()) * scales).to(x.dtype)
