"""This file is about reading a rank's part of the weights and nothing else.

safetensors gives slices of a tensor: of a model on eight ranks, each reads an eighth (and the
norms), straight onto its device, one tensor at a time. Files are closed with the mapping.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from epidote_engine.config import ModelSpec
from epidote_engine.parallel.shards import Shards
from epidote_engine.tensor_shapes import language_shapes
from epidote_engine.weights import Checkpoint, language_names

_ROWS = ("q_proj.", "k_proj.", "v_proj.", "gate_proj.", "up_proj.")
_COLUMNS = ("o_proj.weight", "down_proj.weight")
_EXPERTS = ".mlp.experts."
_VOCABULARY = ("embed_tokens.weight", "lm_head.weight")


class ShardedWeights(Mapping[str, Tensor]):
    """A rank's language weights by plain name; a lookup reads the file each time."""

    def __init__(
        self,
        spec: ModelSpec,
        shards: Shards,
        *,
        device: torch.device | str,
        whole_experts: bool = False,
    ) -> None:
        """Looks at names only. `whole_experts`: no expert's tensors are cut.

        Raises:
            InvalidModel: tensors are missing or unexpected.
        """
        self._spec, self._shards, self._device = spec, shards, device
        self._whole_experts = whole_experts
        self._checkpoint = Checkpoint(spec.path)
        self._shapes = language_shapes(spec)
        self._names = language_names(spec, self._checkpoint)
        # each opened once: a header names thousands of tensors where there are many experts
        self._opened: dict[Path, Any] = {}
        self.bytes_read = 0

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        stored = self._names[name]
        path = self._checkpoint.file_of(stored)
        if path not in self._opened:
            self._opened[path] = safe_open(path, framework="pt", device="cpu")
        whole = self._checkpoint.slice_of(self._opened[path], stored)
        self._checkpoint.check_shape(stored, tuple(whole.get_shape()), shape)
        part: Tensor = self._cut(name, whole, shape)
        self.bytes_read += part.numel() * part.element_size()
        part = part.to(self._device)
        if name.endswith("o_proj.bias") and self._shards.rank:
            part = torch.zeros_like(part)  # the ranks' outputs are added: one of them brings it
        if name in _VOCABULARY:
            each = -(-shape[0] // self._shards.size)
            part = torch.nn.functional.pad(part, (0, 0, 0, each - part.shape[0]))
        return part

    def _cut(self, name: str, whole: Any, shape: tuple[int, ...]) -> Tensor:
        text = self._spec.text
        tensor: Tensor
        if name in _VOCABULARY:
            start, end = self._shards.vocabulary(shape[0])
            tensor = whole[start:end]
        elif self._whole_experts and _EXPERTS in name:
            tensor = whole[:]
        elif any(part in name for part in _ROWS):
            heads = "q_proj" in name or "k_proj" in name or "v_proj" in name
            start, end = self._shards.part(shape[0], int(text["head_dim"]) if heads else 1)
            tensor = whole[start:end]
        elif name.endswith(_COLUMNS):
            start, end = self._shards.part(shape[1])
            tensor = whole[:, start:end]
        else:
            tensor = whole[:]
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
