"""This file is about the two pools of device memory that peers may copy from and into.

How large the KV pool is depends on the device and its share, not on what happens to be free:
several engines that start on one GPU at the same time, in any order, get what is theirs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from epidote_core.errors import InvalidRequest
from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.settings import EngineConfig

if TYPE_CHECKING:
    from epidote_engine.parallel.shards import Shards

_CPU_KV_BYTES = 2 << 30  # a CPU engine serves small models: 2 GiB, scaled by memory_utilization


# what `EngineConfig.kv_cache_dtype` may say besides "auto"
KV_CODES = {"int8": torch.int8, "fp8": torch.float8_e4m3fn}


class Allocate(Protocol):
    """Where a pool lives; the tensor must hold zeros."""

    def __call__(self, name: str, shape: Sequence[int], dtype: torch.dtype) -> Tensor: ...


def plain_allocate(
    name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu"
) -> Tensor:
    """Private memory of this process (or its device); `name` has no meaning."""
    return torch.zeros(tuple(shape), dtype=dtype, device=device)


@dataclass(frozen=True)
class KvPool:
    """tensor [layers, 2 (keys, values), num_blocks, block_size, kv_heads, head_dim].

    Of the model's number type, or one-byte codes (`kv_scales`).
    """

    tensor: Tensor

    @property
    def has_codes(self) -> bool:
        return self.tensor.dtype in KV_CODES.values()

    @property
    def num_blocks(self) -> int:
        return self.tensor.shape[2]

    @property
    def block_size(self) -> int:
        return self.tensor.shape[3]


@dataclass(frozen=True)
class MediaPool:
    """tensor [num_rows, hidden · (1 + number of deep-stack levels)]."""

    tensor: Tensor


def kv_pool(
    config: EngineConfig,
    decoder: DecoderConfig,
    dtype: torch.dtype,
    allocate: Allocate,
    shards: "Shards | None" = None,
    reserved_bytes: int = 0,
) -> KvPool:
    """The KV pool as configured, or as large as memory allows: on every rank the same.

    On a GPU `reserved_bytes` of this engine's memory are left for its weights and steps.

    Raises:
        InvalidRequest: not even one block fits, others hold this engine's memory, or the GPU knows
            no fp8.
    """
    dtype = KV_CODES.get(config.kv_cache_dtype, dtype)
    on_gpu = torch.device(config.device).type == "cuda"
    if on_gpu and dtype is torch.float8_e4m3fn:
        capability = torch.cuda.get_device_capability(config.device)
        if capability < (8, 9):
            raise InvalidRequest(
                f"kv_cache_dtype: fp8 needs a GPU of compute capability 8.9, found {capability}; "
                "int8 works there",
                "kv_cache_dtype",
            )
    block = (config.block_size, decoder.num_kv_heads, decoder.head_dim)
    num_blocks = config.num_kv_blocks
    if num_blocks is None:
        block_bytes = 2 * decoder.num_layers * torch.Size(block).numel() * dtype.itemsize
        num_blocks = _kv_bytes(config, reserved_bytes) // block_bytes
        if shards is not None:
            num_blocks = shards.least(num_blocks, config.device)
    if num_blocks < 1:
        raise InvalidRequest(
            f"num_kv_blocks: no memory left for a single block: weights and steps take "
            f"{_gib(reserved_bytes)} of {config.memory_utilization:.0%} of this engine's part of "
            "the device",
            "num_kv_blocks",
        )
    shape = (decoder.num_layers, 2, num_blocks, *block)
    return KvPool(_on_device(allocate, config)("kv", shape, dtype))


def media_pool(
    config: EngineConfig, row_width: int, dtype: torch.dtype, allocate: Allocate
) -> MediaPool:
    """The encoder cache's memory; `row_width` 0 (no vision): no rows."""
    num_rows = config.num_media_rows if row_width else 0
    return MediaPool(_on_device(allocate, config)("media", (num_rows, row_width), dtype))


def _on_device(allocate: Allocate, config: EngineConfig) -> Allocate:
    return partial(plain_allocate, device=config.device) if allocate is plain_allocate else allocate


def gpu_kv_bytes(config: EngineConfig, reserved: int, *, total: int, free: int) -> int:
    """What an engine's part of a GPU with `total` bytes has for KV beside `reserved`; 0 is nothing.

    `free` counts what this process holds already.

    Raises:
        InvalidRequest: others hold some of this engine's memory.
    """
    own = int(total * config.device_share * config.memory_utilization)
    if own > free:
        part = "" if config.device_share == 1 else f"{config.device_share:.1%} of "
        raise InvalidRequest(
            f"memory_utilization: {config.memory_utilization:g} of {part}{_gib(total)} is "
            f"{_gib(own)}, but only {_gib(free)} of the GPU's memory are free: stop what holds the "
            "rest, or lower --gpu-memory-utilization",
            "memory_utilization",
        )
    return max(0, own - reserved)


def _kv_bytes(config: EngineConfig, reserved_bytes: int) -> int:
    if torch.device(config.device).type != "cuda":
        return int(_CPU_KV_BYTES * config.memory_utilization)
    free, total = torch.cuda.mem_get_info(config.device)
    held = torch.cuda.memory_reserved(config.device)
    return gpu_kv_bytes(config, reserved_bytes, total=total, free=free + held)


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / 2**30:.1f} GiB"
