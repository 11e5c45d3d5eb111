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
    wide = weight.float()
    if most is None:
        most = wide.abs().amax(1) if wide.numel() else wide.new_zeros(len(wide))
    scales = torch.where(most > 0, most / LARGEST[dtype], 1.0)
    values = wide / scales[:, None]
    if dtype is torch.int8:
        values = values.round().clamp(-127, 127)
    return values.to(dtype), scales


def quantized_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """`x @ (weight · scales).T`, summed in fp32; see `ops.quantized_linear`."""
    return ((x.float() @ weight.float().t()) * scales).to(x.dtype)
