"""This file is about the number type that a model is computed in."""

import torch

from epidote_engine.config import ModelSpec
from epidote_engine.models.native_decode import is_small
from epidote_engine.settings import EngineConfig


def computing_dtype(spec: ModelSpec, config: EngineConfig) -> torch.dtype:
    """What `config.dtype` comes to.

    "auto" is how the weights are stored, but float32 on a CPU for a model so small that its decode
    steps are compiled: they then take a third of the time, and every answer is exact.
    """
    name = config.dtype
    if name == "auto":
        on_cpu = torch.device(config.device).type == "cpu"
        name = "float32" if on_cpu and is_small(spec.decoder) else spec.dtype
    dtype = getattr(torch, name)
    assert isinstance(dtype, torch.dtype)
    return dtype
