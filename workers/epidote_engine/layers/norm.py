"""This file is about RMSNorm with few torch ops on a CPU, where each op costs microseconds."""

from typing import TypedDict

import torch
from torch import Tensor

from epidote_kernels import ops


class RmsNorm:
    """`weight · x / sqrt(mean(x²) + eps)`; weight [N]. A GPU takes `epidote_kernels`.

    On a CPU in float32 the projection that follows takes over what is constant (`fold_into`): the
    norm itself is then x / sqrt(sum(x²) + N·eps) alone. Half types round where `epidote_kernels`
    does: the normed value, then its product with weight.
    """

    def __init__(self, weight: Tensor, eps: float) -> None:
        self.weight = weight
        self.eps = eps
        size = weight.shape[0]
        self._on_cpu = weight.device.type == "cpu"
        self.is_folded = self._on_cpu and weight.dtype is torch.float32
        # x / sqrt(mean + eps) = x · sqrt(N) / sqrt(sum + N·eps)
        self._floor = torch.full((), (size * eps) ** 0.5, device=weight.device)
        self.root = torch.full((), size**0.5, device=weight.device)

    def fold_into(self, weight: Tensor) -> Tensor:
        """The weight [out, N] of a projection that reads this norm's output."""
        return weight * (self.weight * self.root) if self.is_folded else weight

    def __call__(self, x: Tensor) -> Tensor:
        """The norm of x [..., N], or what `fold_into` leaves to do."""
        if not self._on_cpu:
            return ops.rms_norm(x, self.weight, self.eps)
        return self.unit(x) if self.is_folded else self.scaled(x, self.weight)

    def of_sum(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor]:
        """(norm of the sum, the sum)."""
        if not self._on_cpu:
            return ops.add_rms_norm(x, residual, self.weight, self.eps)
        residual = residual + x
        return self(residual), residual

    def unit(self, x: Tensor) -> Tensor:
        """On a CPU: x over its length; neither weight nor sqrt(N)."""
        return x / self._length(x)

    def scaled(self, x: Tensor, weight: Tensor) -> Tensor:
        """On a CPU: the whole norm; `weight` broadcasts against x."""
        return (x * (self.root / self._length(x))).to(x.dtype).mul_(weight)

    def _length(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        return torch.hypot(length, self._floor)


class QkNorm(TypedDict, total=False):
    """What `ops.rope_kv_write` wants, to norm heads before it rotates them."""

    q_norm: Tensor
    k_norm: Tensor
    eps: float


class HeadsNorm:
    """Norms of the query heads and the key heads, which differ in their weights [N] only."""

    def __init__(self, query: RmsNorm, key: RmsNorm, num_heads: int, num_kv_heads: int) -> None:
        self._query, self._key = query, key
        self._num_heads = num_heads
        self._weight = torch.cat(
            (query.weight.expand(num_heads, -1), key.weight.expand(num_kv_heads, -1))
        )
        self._folded = self._weight * query.root if query.is_folded else None

    def in_rotation(self) -> QkNorm:
        """Where a kernel rotates, it norms as well: four launches a layer less than `in_place`."""
        query, key = self._query, self._key
        return QkNorm(q_norm=query.weight, k_norm=key.weight, eps=query.eps)

    def folded(self) -> Tensor:
        """On a CPU in float32: what [H + K, N] is left to multiply by after `RmsNorm.unit`."""
        assert self._folded is not None
        return self._folded

    def in_place(self, heads: Tensor) -> None:
        """heads [T, H + K, N], queries first. Mutated."""
        if heads.device.type == "cpu":
            heads.copy_(self.scaled(heads))
            return
        queries, keys = heads[:, : self._num_heads], heads[:, self._num_heads :]
        queries.copy_(self._query(queries))
        keys.copy_(self._key(keys))

    def scaled(self, heads: Tensor) -> Tensor:
        """On a CPU: the norms of heads [T, H + K, N]."""
        if self._folded is not None:
            return self._query.unit(heads).mul_(self._folded)
        return self._query.scaled(heads, self._weight)
