"""This file is about RMSNorm with few torch ops on a CPU, where each op costs microseconds."""

import torch
from torch import Tensor

from epidote_kernels import ops


class RmsNorm:
    """`weight · x / sqrt(mean(x²) + eps)`; weight [N], or [heads, N] for normed heads.

    A GPU, and half types, take `epidote_kernels`.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps
        size = weight.shape[-1]
        self._is_lean = weight.device.type == "cpu" and weight.dtype is torch.float32
        # x / sqrt(mean + eps) = x · sqrt(N) / sqrt(sum + N·eps)
        self._scaled = weight * size**0.5
        self._floor = torch.full((), (size * eps) ** 0.5, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        if not self._is_lean:
            return ops.rms_norm(x, self.weight, self.eps)
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        return (x / torch.hypot(length, self._floor)).mul_(self._scaled)

    def of_sum(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """(norm of the sum, the sum)."""
        if not self._is_lean:
            return ops.add_rms_norm(x, residual, self.weight, self.eps)
        residual = residual + x
        return self(residual), residual
