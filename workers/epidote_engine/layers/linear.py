"""This file is about matrix products with weights that never change.

On a CPU the weight is kept in oneDNN's own blocked layout: that is 1.6 to 2.6 times as fast for 16
rows of fp32 as `torch.nn.functional.linear` on an AMD EPYC core, 2.3 times for 64 to 2,304 rows
(MKL takes a slow path there), for bf16 2 times at one row and equal from 512 rows on.
"""

import torch
from torch import Tensor

from epidote_engine.layers.activation import ACTIVATIONS

_ROWS_HINT = 16  # the blocked layout suits about this many rows; any number works
# oneDNN's names: an activation inside the product costs 0.15 ms where one after it takes 1.1 ms
_FUSED = {
    None: ("none", ""),
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
}


class Linear:
    """`x @ weight.T + bias`; weight [out, in], bias [out] or None. Keeps no plain CPU weight."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.out_features = weight.shape[0]
        self._bias = bias
        self._packed = _packed(weight)
        if self._packed is not None:
            # the overload itself: finding it anew would take 4 of a small product's 14 µs
            self._product = torch.ops.mkldnn._linear_pointwise.default
        self._weight = weight if self._packed is None else None

    @classmethod
    def fused(cls, weights: list[Tensor], biases: list[Tensor | None]) -> "Linear":
        """Several projections of one input as one: their outputs lie side by side."""
        present = [bias for bias in biases if bias is not None]
        assert len(present) in (0, len(biases)), "either every part has a bias or none"
        return cls(torch.cat(weights), torch.cat(present) if present else None)

    def plain(self) -> tuple[Tensor, Tensor | None]:
        """(weight [out, in], bias): a copy where the weight lies in blocks."""
        weight = self._packed.to_dense() if self._packed is not None else self._weight
        assert weight is not None
        return weight, self._bias

    def __call__(self, x: Tensor, *, activation: str | None = None) -> Tensor:
        """x [T, in] → [T, out], then the activation (`layers.activation`), if any."""
        if self._weight is not None:
            y = torch.nn.functional.linear(x, self._weight, self._bias)
            return y if activation is None else ACTIVATIONS[activation](y)
        if x.shape[0] == 0:
            return x.new_empty(0, self.out_features)
        function, form = _FUSED[activation]
        z: Tensor = self._product(x, self._packed, self._bias, function, [], form)
        return z


def _packed(weight: Tensor) -> Tensor | None:
    """The weight in oneDNN's layout; None where torch lacks it or the type gains nothing."""
    if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    half = weight.dtype is torch.bfloat16
    if not half and weight.dtype is not torch.float32:
        return None
    try:
        if half and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
            return None
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS_HINT)
    except (RuntimeError, AttributeError):  # another torch build: plain products are right too
        return None
    return packed
