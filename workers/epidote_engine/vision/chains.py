"""This file is about the elementwise chains of a vision tower's blocks: as they are, or compiled.

Between its products and its attention a block turns queries and keys by their positions and adds
what a half has computed to what went past it, before the next norm. In plain torch the first is
sixteen launches over float32 copies; `torch.compile` makes one of them, and one of sum and norm.
The language model has kernels of its own for both (`rope_kv_write`, `rms_norm`), so nothing is left
there for a compiler; products and attention are not touched here either.

Compiled once a process, for any number of patches, before the first picture. Sizes of a model are
constants: an engine of another model compiles anew.
"""

import logging
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

logger = logging.getLogger(__name__)

WARM_PATCHES = (48, 64)  # the second finds nothing to compile

Turn = Callable[[Tensor, Tensor, Tensor, int], tuple[Tensor, Tensor]]
AddNorm = Callable[[Tensor, Tensor, Tensor, "Tensor | None", float], tuple[Tensor, Tensor]]


def turned(qkv: Tensor, cos: Tensor, sin: Tensor, num_heads: int) -> tuple[Tensor, Tensor]:
    """Queries and keys [patches, heads, head_dim] of `qkv` [patches, 3 · heads · head_dim], pair
    (i, i + head_dim/2) rotated in float32. `cos`, `sin` float32 [patches, 1, head_dim / 2]."""
    query, key, _ = qkv.view(qkv.shape[0], 3, num_heads, -1).unbind(1)
    return turn(query, cos, sin), turn(key, cos, sin)


def turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x.dtype)


def add_norm(
    x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """(x + y, its norm over the last dimension): LayerNorm with a bias, RMSNorm without."""
    total = x + y
    if bias is None:
        return total, functional.rms_norm(total, (total.shape[-1],), weight, eps)
    return total, functional.layer_norm(total, (total.shape[-1],), weight, bias, eps)


class Chains:
    """The chains of one tower; `turned` and `add_norm` take what the functions above take."""

    def __init__(self) -> None:
        self.turned: Turn = turned
        self.add_norm: AddNorm = add_norm
        self.is_compiled = False

    def compile(
        self, *, heads: int, head_dim: int, weight: Tensor, bias: Tensor | None, eps: float
    ) -> None:
        """Compile, and run each once, so that no picture waits. Where no compiler works the plain
        chains stay, with a warning.

        `weight` [hidden] and `bias` are a norm's own: code is compiled for their kind of tensor.
        """
        try:
            compiled_turned, compiled_add_norm = _compiled()
            with torch.inference_mode():
                for patches in WARM_PATCHES:
                    qkv = torch.ones(patches, 3 * heads * head_dim).to(weight)
                    cos, sin = (
                        torch.ones(patches, 1, head_dim // 2, device=weight.device)
                        for _ in range(2)  # never one tensor twice: that would be compiled in
                    )
                    x, y = (torch.ones(patches, len(weight)).to(weight) for _ in range(2))
                    for tensor in (qkv, cos, sin, x, y):
                        torch._dynamo.mark_dynamic(tensor, 0)
                    compiled_turned(qkv, cos, sin, heads)
                    compiled_add_norm(x, y, weight, bias, eps)
        except Exception as error:  # no C++ compiler, no triton: the plain chains are right, too
            logger.warning("vision tower not compiled", extra={"reason": repr(error)[:300]})
            return
        self.turned, self.add_norm = compiled_turned, compiled_add_norm
        self.is_compiled = True


@lru_cache(maxsize=1)
def _compiled() -> tuple[Any, Any]:
    """Once a process: a role that comes back finds its code."""
    # a pool of compiling processes costs more than two chains do
    options: dict[str, Any] = {"compile_threads": 1}
    return tuple(
        torch.compile(function, fullgraph=True, options=options) for function in (turned, add_norm)
    )  # type: ignore[return-value]
