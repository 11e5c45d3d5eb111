"""This file is about the ops of weights in 8 bits."""

import torch
from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel
from epidote_kernels.reference.quantized_linear import LARGEST


def quantize_weight(
    weight: Tensor, dtype: torch.dtype, most: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """A weight in 8 bits with one scale per output: (values [N, K], scales [N] fp32).

    weight  [N, K]  fp.   dtype  int8 or float8_e4m3fn
    most    [N]  fp32: the largest magnitude of each row, where `weight` has but some of a row's
            numbers; None: it has them all
    The largest magnitude of a row becomes the type's largest number (127, 448). Done once, while
    loading, in plain torch on any device.

    Raises:
        ValueError: another shape, dtype or target.
    """
    if weight.dim() != 2:
        raise ValueError(f"weight: must have shape [N, K], got {list(weight.shape)}")
    arguments.is_float("weight", weight)
    if dtype not in LARGEST:
        raise ValueError(f"dtype: must be torch.int8 or torch.float8_e4m3fn, got {dtype}")
    if most is not None:
        arguments.fits("most", most, (weight.shape[0],))
        arguments.is_int("most", most, torch.float32)
    return reference.quantize_weight(weight, dtype, most)


def quantized_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """`x @ (weight · scales).T`: activations stay as they are, sums in fp32.

    x        [M, K]  fp, last dimension of stride 1; made for M up to 64
    weight   [N, K]  int8 or float8_e4m3fn, contiguous, of `quantize_weight`
    scales   [N]  fp32
    returns  [M, N]  like x, contiguous
    Traffic: N·K + 4·N bytes and the rows, where a bf16 weight costs 2·N·K.
    Twin: reference.quantized_linear.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if x.dim() != 2 or weight.dim() != 2 or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"x, weight: must have shapes [M, K] and [N, K], "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    arguments.is_float("x", x)
    if weight.dtype not in LARGEST:
        raise ValueError(f"weight: must be int8 or float8_e4m3fn, got {weight.dtype}")
    arguments.fits("scales", scales, (weight.shape[0],))
    arguments.is_int("scales", scales, torch.float32)
    arguments.are_together("x, weight, scales", x, weight, scales)
    if by_kernel(x):
        arguments.rows_are_whole("x", x)
        arguments.is_contiguous("weight", weight)
        arguments.is_contiguous("scales", scales)
        from epidote_kernels.quantized_linear import quantized_linear as kernel

        return kernel(x, weight, scales)
    return reference.quantized_linear(x, weight, scales)
