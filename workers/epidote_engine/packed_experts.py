"""This file is about checkpoints that keep all experts of a layer in one tensor.

Engines want one expert's projection at a time, and a rank only its channels of it. Two layouts are
in use, told apart by shape: transformers 5 saves `gate_up_proj` [E, 2·I, N] and `down_proj`
[E, N, I]; Qwen3-VL-MoE's published files hold [E, N, 2·I] and [E, I, N].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from epidote_engine.expert_spec import ExpertSpec
from epidote_engine.model_files import InvalidModel

Span = slice | tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class ExpertPart:
    """One expert's projection [outputs, inputs] inside the checkpoint's tensor of that name."""

    tensor: str
    expert: int
    first: int  # of the tensor's outputs
    last: int
    is_transposed: bool  # the tensor is [E, inputs, outputs]

    def of(self, whole: Tensor) -> Tensor:
        """The part as a view of the whole tensor."""
        return self.cut(whole, slice(None))

    def cut(self, whole: Any, span: Span) -> Tensor:
        """`part[span]`, read from a tensor or from a slice of a file, and nothing else."""
        rows, columns = span if isinstance(span, tuple) else (span, slice(None))
        start, stop, _ = rows.indices(self.last - self.first)
        rows = slice(self.first + start, self.first + stop)
        inside = (columns, rows) if self.is_transposed else (rows, columns)
        part: Tensor = whole[self.expert : self.expert + 1, inside[0], inside[1]][0]
        return part.T if self.is_transposed else part


Stored = str | ExpertPart  # how a checkpoint holds one of the plain names


class PartSlice:
    """An `ExpertPart` in a file, read like one of safetensors' slices."""

    def __init__(self, whole: Any, part: ExpertPart) -> None:
        self._whole, self._part = whole, part

    def get_shape(self) -> list[int]:
        inputs = self._whole.get_shape()[1 if self._part.is_transposed else 2]
        return [self._part.last - self._part.first, inputs]

    def __getitem__(self, span: Span) -> Tensor:
        return self._part.cut(self._whole, span).contiguous()


def unpacked_names(
    names: Mapping[str, str],
    experts: ExpertSpec,
    hidden: int,
    shape_of: Callable[[str], tuple[int, ...]],
) -> dict[str, Stored]:
    """`names` (plain → stored) with every packed tensor replaced by its experts' projections.

    shape_of  of a stored tensor

    Raises:
        InvalidModel: packed tensors have neither layout's shapes.
    """
    found: dict[str, Stored] = dict(names)
    inner, count = experts.intermediate, experts.num_experts
    for layer in experts.layers:
        at = f"layers.{layer}.mlp.experts"
        gate_up, down = names.get(f"{at}.gate_up_proj"), names.get(f"{at}.down_proj")
        if gate_up is None or down is None:
            continue
        del found[f"{at}.gate_up_proj"], found[f"{at}.down_proj"]
        shapes = shape_of(gate_up), shape_of(down)
        if shapes == ((count, 2 * inner, hidden), (count, hidden, inner)):
            is_transposed = False
        elif shapes == ((count, hidden, 2 * inner), (count, inner, hidden)):
            is_transposed = True
        else:
            raise InvalidModel(
                f"tensors {gate_up!r} and {down!r} have shapes {shapes[0]} and {shapes[1]}, "
                f"config.json asks for {(count, 2 * inner, hidden)} and {(count, hidden, inner)}, "
                "or both with their last dimensions exchanged"
            )
        for name, tensor, first, last in (
            ("gate_proj", gate_up, 0, inner),
            ("up_proj", gate_up, inner, 2 * inner),
            ("down_proj", down, 0, hidden),
        ):
            for expert in range(count):
                found[f"{at}.{expert}.{name}.weight"] = ExpertPart(
                    tensor=tensor, expert=expert, first=first, last=last,
                    is_transposed=is_transposed,
                )  # fmt: skip
    return found
