"""This file is about the ops of RMS normalisation, alone and after a residual sum."""

from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`weight · x / sqrt(mean(x²) + eps)` over the last dimension.

    x        [..., N]  fp, last dimension of stride 1; leading ones may be strided
    weight   [N]  like x
    returns  like x, contiguous; the sum of squares is in fp32
    Traffic: 2·numel(x)·itemsize bytes.
    Twin: reference.rms_norm. Source: Zhang and Sennrich, NeurIPS 2019.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if x.dim() < 1 or weight.dim() != 1 or x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x, weight: must have shapes [..., N] and [N], "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    arguments.is_float("x", x)
    arguments.are_alike("x, weight", x, weight)
    if by_kernel(x):
        arguments.rows_are_whole("x", x)
        arguments.is_contiguous("weight", weight)
        from epidote_kernels.norms import rms_norm as kernel

        return kernel(x, weight, eps)
    return reference.rms_norm(x, weight, eps)


def add_rms_norm(x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The residual sum of a layer and its norm, in one pass over both.

    x, residual  [..., N]  fp, contiguous
    weight       [N]  like x
    returns      (norm of the sum, the sum `x + residual` rounded to x's dtype), each like x.
                 The arguments are left as they were.
    Traffic: 4·numel(x)·itemsize bytes, where add and norm apart move 5.
    Twin: reference.add_rms_norm. Source: Zhang and Sennrich, NeurIPS 2019.

    Raises:
        ValueError: shapes, dtypes, devices or strides do not fit.
    """
    if x.dim() < 1 or weight.dim() != 1 or x.shape[-1] != weight.shape[0]:
        raise ValueError(
            f"x, weight: must have shapes [..., N] and [N], "
            f"got {list(x.shape)} and {list(weight.shape)}"
        )
    if residual.shape != x.shape:
        raise ValueError(
            f"residual: must have x's shape {list(x.shape)}, got {list(residual.shape)}"
        )
    arguments.is_float("x", x)
    arguments.are_alike("x, residual, weight", x, residual, weight)
    if by_kernel(x):
        arguments.is_contiguous("x", x)
        arguments.is_contiguous("residual", residual)
        arguments.is_contiguous("weight", weight)
        from epidote_kernels.norms import add_rms_norm as kernel

        return kernel(x, residual, weight, eps)
    return reference.add_rms_norm(x, residual, weight, eps)
