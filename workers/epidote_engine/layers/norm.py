"""This file is about RMSNorm with few torch ops on a CPU, where each op costs microseconds."""

import torch
from torch import Tensor

from epidote_kernels import ops


class RmsNorm:
    """`weight · x / sqrt(mean(x²) + eps)`; weight [N]. A GPU takes `epidote_kernels`.

    Half types round where `epidote_kernels` does: the normed value, then its product with weight.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps
        size = weight.shape[0]
        self._on_cpu = weight.device.type == "cpu"
        self._is_full = weight.dtype is torch.float32
        # x / sqrt(mean + eps) = x · sqrt(N) / sqrt(sum + N·eps)
        self._floor = torch.full((), (size * eps) ** 0.5, device=weight.device)
        self._root = torch.full((), size**0.5, device=weight.device)

    def __call__(self, x: Tensor) -> Tensor:
        if not self._on_cpu:
            return ops.rms_norm(x, self.weight, self.eps)
        return self.scaled(x, self.weight)

    def of_sum(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """(norm of the sum, the sum)."""
        if not self._on_cpu:
            return ops.add_rms_norm(x, residual, self.weight, self.eps)
        residual = residual + x
        return self.scaled(residual, self.weight), residual

    def scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        """On a CPU; `weight` broadcasts against x."""
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed = x * (self._root / torch.hypot(length, self._floor))
        return normed.mul_(weight) if self._is_full else normed.to(x.dtype).mul_(weight)


class HeadsNorm:
    """Norms of the query heads and the key heads, which differ in their weights [N] only."""

    def __init__(self, query: RmsNorm, key: RmsNorm, num_heads: int, num_kv_heads: int) -> None:
        self._query, self._key = query, key
        self._num_heads = num_heads
        self._both = torch.cat(
            (query.weight.expand(num_heads, -1), key.weight.expand(num_kv_heads, -1))
        )

    def in_place(self, heads: Tensor) -> None:
        """heads [T, H + K, N], queries first. Mutated."""
        if heads.device.type == "cpu":
            heads.copy_(self._query.scaled(heads, self._both))
            return
        queries, keys = heads[:, : self._num_heads], heads[:, self._num_heads :]
        queries.copy_(self._query(queries))
        keys.copy_(self._key(keys))
