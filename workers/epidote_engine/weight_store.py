"""This file is about weights that come and go with a worker's role."""

from collections.abc import Mapping
from enum import StrEnum

import torch
from torch import Tensor

from epidote_engine.config import ModelSpec
from epidote_engine.random_weights import RandomWeights
from epidote_engine.tensor_shapes import language_shapes, vision_shapes
from epidote_engine.weights import language_weights, vision_weights


class Part(StrEnum):
    """The two halves of a model that load separately."""

    LANGUAGE = "language"
    VISION = "vision"


class WeightStore:
    """One part's weights: on the device while wanted, between times in files or host memory.

    `host_copy` keeps them in host memory (page-locked for a GPU), already in the run's dtype:
    a reload is then one copy over the bus. Without it a reload reads the files again, which the
    page cache usually still holds. On a CPU a host copy would only double the memory: ignored.
    """

    def __init__(
        self,
        spec: ModelSpec,
        part: Part,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
        host_copy: bool = False,
        at_random: bool = False,
    ) -> None:
        """`at_random`: instead of files, `random_weights`."""
        self.spec, self.part = spec, part
        self.dtype, self.device = dtype, torch.device(device)
        self._at_random = at_random
        self._host_copy = host_copy and self.device.type != "cpu"
        self._on_host: dict[str, Tensor] | None = None
        self._loaded: dict[str, Tensor] | None = None

    @property
    def is_loaded(self) -> bool:
        return self._loaded is not None

    def load(self) -> dict[str, Tensor]:
        """The weights on the device; a second call returns the same tensors.

        Raises:
            InvalidModel: see `weights`.
        """
        if self._loaded is None:
            self._loaded = self._from_host() if self._host_copy else self._read(self.device)
        return self._loaded

    def source(self) -> Mapping[str, Tensor]:
        """The weights for somebody who makes copies on the device: one at a time where possible,
        so that the device never holds them twice.

        Raises:
            InvalidModel: see `weights`.
        """
        if self._host_copy:
            return self._host()
        if self._at_random:
            return self._random(self.device)
        if self.device.type != "cpu" and self.part is Part.LANGUAGE:
            from epidote_engine.parallel.shards import Shards
            from epidote_engine.parallel.weights import ShardedWeights

            return ShardedWeights(self.spec, Shards.alone(), device=self.device)
        return self.load()

    def release(self) -> None:
        """Forget the device's tensors; memory is free once no one else holds them."""
        self._loaded = None

    def _random(self, device: torch.device) -> RandomWeights:
        if self.part is Part.LANGUAGE:
            shapes = language_shapes(self.spec)
        else:
            assert self.spec.vision is not None, "this part is a tower"
            shapes = vision_shapes(self.spec.vision)
        return RandomWeights(shapes, dtype=self.dtype, device=device)

    def _read(self, device: torch.device) -> dict[str, Tensor]:
        if self._at_random:
            return dict(self._random(device))
        read = language_weights if self.part is Part.LANGUAGE else vision_weights
        return read(self.spec, dtype=self.dtype, device=device)

    def _from_host(self) -> dict[str, Tensor]:
        return {n: t.to(self.device, non_blocking=True) for n, t in self._host().items()}

    def _host(self) -> dict[str, Tensor]:
        if self._on_host is None:
            read = self._read(torch.device("cpu"))
            pin = self.device.type == "cuda"
            self._on_host = {n: t.pin_memory() if pin else t.clone() for n, t in read.items()}
        return self._on_host
