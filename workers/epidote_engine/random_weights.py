"""This file is about weights drawn at random in a model's shapes, for benches.

Speed depends on shapes, not on values, as long as these are no zeros: a bench then needs a
config.json and no checkpoint. Every tensor is a function of its name, so that several engines, or
another program, can have the same ones.
"""

import zlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from epidote_engine.tensor_shapes import Shapes


class RandomWeights(Mapping[str, Tensor]):
    """Tensors of `shapes`; each lookup draws the same numbers anew.

    Matrices have the scale 1 / sqrt(inputs), norms lie around 1, biases around 0.
    """

    def __init__(self, shapes: Shapes, *, dtype: torch.dtype, device: torch.device | str) -> None:
        self._shapes, self._dtype = shapes, dtype
        self._device = torch.device(device)

    def __getitem__(self, name: str) -> Tensor:
        shape = self._shapes[name]
        generator = torch.Generator(self._device).manual_seed(zlib.crc32(name.encode()))
        drawn = torch.randn(shape, generator=generator, device=self._device, dtype=self._dtype)
        if len(shape) == 1:
            return drawn.mul_(0.1) + (0.0 if name.endswith("bias") else 1.0)
        return drawn.mul_(torch.Size(shape[1:]).numel() ** -0.5)

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def __len__(self) -> int:
        return len(self._shapes)
