"""This file is about matrix products with weights that never change."""

import torch
from torch import Tensor


class Linear:
    """`x @ weight.T + bias`; weight [out, in], bias [out] or None."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight = weight
        self.bias = bias

    @classmethod
    def fused(cls, weights: list[Tensor], biases: list[Tensor | None]) -> "Linear":
        """Several projections of one input as one: their outputs lie side by side."""
        present = [bias for bias in biases if bias is not None]
        assert len(present) in (0, len(biases)), "either every part has a bias or none"
        return cls(torch.cat(weights), torch.cat(present) if present else None)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)
