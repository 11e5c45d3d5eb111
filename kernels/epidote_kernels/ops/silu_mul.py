"""This file is about the op of a SwiGLU block's activation."""

from torch import Tensor

from epidote_kernels import arguments, reference
from epidote_kernels.ops.dispatch import by_kernel


def silu_mul(gate_up: Tensor) -> Tensor:
    """`silu(gate) · up`, the activation between the two projections of a SwiGLU block.

    gate_up  [..., 2·I]  fp, contiguous; the gate is the first half
    returns  [..., I]  like gate_up; silu in fp32, rounded, then multiplied
    Traffic: 1.5·numel(gate_up)·itemsize bytes.
    Twin: reference.silu_mul. Source: Shazeer, 2020.

    Raises:
        ValueError: an odd last dimension, a wrong dtype or strides.
    """
    if gate_up.dim() < 1 or gate_up.shape[-1] % 2:
        raise ValueError(f"gate_up: must have shape [..., 2·I], got {list(gate_up.shape)}")
    arguments.is_float("gate_up", gate_up)
    if by_kernel(gate_up):
        arguments.is_contiguous("gate_up", gate_up)
        from epidote_kernels.silu_mul import silu_mul as kernel

        return kernel(gate_up)
    return reference.silu_mul(gate_up)
