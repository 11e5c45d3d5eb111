"""This file is about linear layers whose weights are kept in 8 bits: half of a decode step's bytes.

Up to `FEW_ROWS` rows the kernel reads 8-bit weights and multiplies in the activations' type. More
rows, as in a prompt, are arithmetic: the weight is widened once and torch's product takes it.
Source: weight-only quantisation with one scale per output, as in LLM.int8(), Dettmers et al., 2022.
"""

import torch
from torch import Tensor

from epidote_core.errors import InvalidRequest
from epidote_engine.layers.activation import ACTIVATIONS
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Experts
from epidote_engine.models.decoder import DecoderLM
from epidote_kernels import ops

FEW_ROWS = 64  # the kernel's largest tile
KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


class QuantizedLinear(Linear):
    """`Linear` with its weight in 8 bits and a scale for each output; the bias stays as it is."""

    def __init__(self, plain: Linear, kind: torch.dtype) -> None:
        """`plain` may be dropped afterwards.

        Raises:
            InvalidRequest: its weight is in oneDNN's layout (float32 and bfloat16 on a CPU), which
                has no 8-bit product here.
        """
        weight = plain._weight
        if weight is None:
            raise InvalidRequest("quantization: not on a CPU in float32 or bfloat16")
        self.out_features = plain.out_features
        self._bias = plain._bias
        self._packed = None
        self._values, self._scales = ops.quantize_weight(weight, kind)

    def __call__(self, x: Tensor, *, activation: str | None = None) -> Tensor:
        """x [T, in] → [T, out], then the activation, if any."""
        if x.shape[0] <= FEW_ROWS:
            y = ops.quantized_linear(x, self._values, self._scales)
        else:
            y = torch.nn.functional.linear(x, self.widened(x.dtype))
        if self._bias is not None:
            y = y + self._bias
        return y if activation is None else ACTIVATIONS[activation](y)

    def widened(self, dtype: torch.dtype) -> Tensor:
        """The weight [out, in] that the 8 bits stand for."""
        return (self._values.float() * self._scales[:, None]).to(dtype)


def quantize(model: DecoderLM, kind: str) -> None:
    """Keep the projections of `model` and its head in 8 bits. Mutates it; embedding, norms stay.

    kind  "int8" or "fp8"

    Raises:
        InvalidRequest: see `QuantizedLinear`; the model has experts, whose products take whole
            weights.
    """
    dtype = KINDS[kind]
    for layer in model.layers:
        layer.attention.qkv = QuantizedLinear(layer.attention.qkv, dtype)
        layer.attention.out = QuantizedLinear(layer.attention.out, dtype)
        if isinstance(layer.mlp, Experts):
            raise InvalidRequest("quantization: not with a mixture of experts", "quantization")
        layer.mlp.gate_up = QuantizedLinear(layer.mlp.gate_up, dtype)
        layer.mlp.down = QuantizedLinear(layer.mlp.down, dtype)
    model.head = QuantizedLinear(model.head, dtype)
