"""This file is about the pretend engine's pools: numbers that stand for KV and embeddings."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from epidote_core.generation import MediaPixels
from epidote_engine.settings import EngineConfig
from epidote_workers.engine_protocol import Allocate
from epidote_workers.fake_tokens import LAYERS, row_value, token_value

WIDTH, ROW_WIDTH = 8, 16


@dataclass(frozen=True)
class FakePool:
    tensor: torch.Tensor


class FakeMemory:
    """Both pools. Every number is written several times, so that a torn copy shows."""

    def __init__(self, config: EngineConfig, num_blocks: int, allocate: Allocate) -> None:
        self._block_size = config.block_size
        shape = (LAYERS, 2, num_blocks, config.block_size, 1, WIDTH)
        self.kv = FakePool(allocate("kv", shape, torch.float32))
        rows = (config.num_media_rows, ROW_WIDTH)
        self.media = FakePool(allocate("media", rows, torch.float32))

    def encode(self, pixels: MediaPixels, rows: Sequence[int]) -> None:
        total = sum(pixels.data)
        for number, row in enumerate(rows):
            self.media.tensor[row] = float(row_value(total, pixels.key, number))

    def embedding(self, row: int) -> int:
        """What lies in a row; -1 if it is torn."""
        values = set(self.media.tensor[row].tolist())
        return int(values.pop()) if len(values) == 1 else -1

    def write(self, blocks: Sequence[int], at: int, layer: int, token: int) -> None:
        """The KV of one token in one layer."""
        block, slot = blocks[at // self._block_size], at % self._block_size
        self.kv.tensor[layer, :, block, slot] = float(token_value(token, at, layer))

    def total(self, blocks: Sequence[int], num_tokens: int) -> int:
        """The sum of a sequence's KV as it lies there; torn or missing parts make it another."""
        flat = self.kv.tensor[:, :, list(blocks)].flatten(2, 3)[:, :, :num_tokens]
        whole = flat.to(torch.int64)
        torn = int((whole != whole[:, :1, :, :, :1]).sum())
        return int(whole[:, 0, :, 0, 0].sum()) + torn
