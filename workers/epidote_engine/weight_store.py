"""This file is about weights that come and go with a worker's role."""

from enum import StrEnum

import torch
from torch import Tensor

from epidote_engine.config import ModelSpec
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
    ) -> None:
        self.spec, self.part = spec, part
        self.dtype, self.device = dtype, torch.device(device)
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

    def release(self) -> None:
        """Forget the device's tensors; memory is free once no one else holds them."""
        self._loaded = None

    def _read(self, device: torch.device) -> dict[str, Tensor]:
        read = language_weights if self.part is Part.LANGUAGE else vision_weights
        return read(self.spec, dtype=self.dtype, device=device)

    def _from_host(self) -> dict[str, Tensor]:
        if self._on_host is None:
            read = self._read(torch.device("cpu"))
            pin = self.device.type == "cuda"
            self._on_host = {n: t.pin_memory() if pin else t.clone() for n, t in read.items()}
        return {n: t.to(self.device, non_blocking=True) for n, t in self._on_host.items()}
