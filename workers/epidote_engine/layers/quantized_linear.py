"""This file is about linear layers whose weights are kept in 8 bits: half of a decode step's bytes.

Up to `FEW_ROWS` rows the kernel reads 8-bit weights and multiplies in the activations' type. More
rows, as in a prompt, are arithmetic: the weight is widened once and torch's product takes it.
Experts' grouped products read 8-bit weights whatever their rows are.

A scale belongs to an output. Where a model is cut over ranks, outputs of most weights are cut, and
each rank has its own; where inputs are, all ranks take the scale of the whole row (`largest`), so
that codes are those of the whole model and the ranks' sums add up.
Source: weight-only quantisation with one scale per output, as in LLM.int8(), Dettmers et al., 2022.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from epidote_core.errors import InvalidRequest
from epidote_engine.layers.activation import ACTIVATIONS
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.mlp import Experts
from epidote_engine.model_files import InvalidModel
from epidote_engine.models.decoder import DecoderLM
from epidote_kernels import ops

FEW_ROWS = 64  # the kernel's largest tile
KINDS = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}
Largest = Callable[[Tensor], Tensor]  # rows' largest magnitudes here → on all ranks; may mutate


def own(most: Tensor) -> Tensor:
    """Of rows that are whole here."""
    return most


class QuantizedLinear(Linear):
    """`Linear` with its weight in 8 bits and a scale for each output; the bias stays as it is."""

    def __init__(self, plain: Linear, kind: torch.dtype, largest: Largest = own) -> None:
        """`plain` may be dropped afterwards.

        Raises:
            InvalidRequest: its weight is in oneDNN's layout (float32 and bfloat16 on a CPU), which
                has no 8-bit product here.
            InvalidModel: it holds numbers that are none, or infinite.
        """
        weight = plain._weight
        if weight is None:
            raise InvalidRequest("quantization: on a CPU with dtype float16 only")
        self.out_features = plain.out_features
        self._bias = plain._bias
        self._packed = None
        most = largest(_magnitudes(weight))
        _refuse_none(most)
        self._values, self._scales = ops.quantize_weight(weight, kind, most)

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


def quantize(
    model: DecoderLM, kind: str, *, largest: Largest = own, largest_of_experts: Largest = own
) -> None:
    """Keep the projections of `model`, its experts and its head in 8 bits. Mutates it; embedding,
    norms and the experts' routers stay.

    kind                "int8" or "fp8"
    largest             of rows of the attention's outputs and the dense layers' down projections
    largest_of_experts  of rows of the experts' down projections

    Raises:
        InvalidRequest, InvalidModel: see `QuantizedLinear`.
    """
    dtype = KINDS[kind]
    for layer in model.layers:
        layer.attention.qkv = QuantizedLinear(layer.attention.qkv, dtype)
        layer.attention.out = QuantizedLinear(layer.attention.out, dtype, largest)
        if isinstance(layer.mlp, Experts):
            quantize_experts(layer.mlp, dtype, largest_of_experts)
        else:
            layer.mlp.gate_up = QuantizedLinear(layer.mlp.gate_up, dtype)
            layer.mlp.down = QuantizedLinear(layer.mlp.down, dtype, largest)
    model.head = QuantizedLinear(model.head, dtype)


def quantize_experts(experts: Experts, kind: torch.dtype, largest: Largest = own) -> None:
    """Keep every expert's projections in 8 bits, each with scales of its own. Mutates `experts`.

    `largest`: of rows of `down` [E · hidden].
    """
    experts.gate_up, gate_up_scales = _codes(experts.gate_up, kind, own)
    experts.down, down_scales = _codes(experts.down, kind, largest)
    experts.scales = gate_up_scales, down_scales


def _codes(weight: Tensor, kind: torch.dtype, largest: Largest) -> tuple[Tensor, Tensor]:
    """(codes, scales [E, N]) of weights [E, N, K]; one expert at a time is widened."""
    most = largest(torch.stack([_magnitudes(expert) for expert in weight]).flatten())
    codes = torch.empty(weight.shape, dtype=kind, device=weight.device)
    scales = torch.empty(weight.shape[:2], dtype=torch.float32, device=weight.device)
    _refuse_none(most)
    rows = most.view(weight.shape[:2])
    for place, expert in enumerate(weight):
        values, scales[place] = ops.quantize_weight(expert, kind, rows[place].contiguous())
        codes[place].copy_(values)
    return codes, scales


def _magnitudes(weight: Tensor) -> Tensor:
    """The largest magnitude of each row [N] of a weight [N, K], fp32."""
    return weight.abs().amax(1).float() if weight.numel() else weight.new_zeros(len(weight)).float()


def _refuse_none(most: Tensor) -> None:
    """A row with NaN has no scale, and codes of int8 would make finite numbers of it."""
    if not torch.isfinite(most).all():
        raise InvalidModel("quantization: the model's weights hold NaN or infinity")
