"""This file is about tokens that are sampled on the device while the host goes on.

A draft is one step's choice before anybody waited for it. Everything the host wants of it leaves
the device in one copy, into page-locked memory, and whoever reads it waits for an event behind it.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epidote_core.generation import TokenLogprob
from epidote_engine.device_events import DeviceEvent
from epidote_engine.rows import BatchRows, Ints
from epidote_engine.sampler import Sampled, Sampler, _unpacked, best_tokens
from epidote_engine.sampling_batch import SamplingBatch
from epidote_engine.vision.upload import upload
from epidote_kernels import ops


class Draft:
    """Tokens [N] of `rows`, `NO_TOKEN` among them, on their way to the host."""

    def __init__(self, rows: Ints, ids: Tensor, table: Tensor | None, wanted: Ints) -> None:
        """`table`: float32 [N, 2 + 2k] of id, its logprob, the k best and their ids; None: no
        logprobs. `wanted` says how many of them each row asked for, -1 for none."""
        self.rows, self.ids, self._wanted = rows, ids, wanted
        self._with_logprobs = table is not None
        leaving = ids if table is None else table
        self._done: DeviceEvent | None = None
        self._host = leaving
        if leaving.is_cuda:
            self._host = torch.empty(leaving.shape, dtype=leaving.dtype, pin_memory=True)
            self._host.copy_(leaving, non_blocking=True)

    @classmethod
    def of_nothing(cls) -> "Draft":
        """Of a step that samples for nobody: it is waited for all the same."""
        none = np.empty(0, np.int64)
        return cls(none, torch.empty(0, dtype=torch.int64), None, none)

    def behind(self, event: DeviceEvent) -> "Draft":
        """The draft itself, there when `event` has come, which lies behind all of its step."""
        self._done = event
        return self

    def sampled(self) -> Sampled:
        """The tokens on the host. Waits for the step: then its inputs are read, its KV written."""
        if self._done is not None:
            self._done.synchronize()
        host = self._host.numpy()
        if self._with_logprobs:
            return _unpacked(host, self.rows, self._wanted)
        none: list[TokenLogprob | None] = [None] * len(self.rows)
        return Sampled(self.rows, host, none)


class DraftingSampler(Sampler):
    """A sampler that need not wait, and on a GPU draws by kernel instead of sorting."""

    def __init__(self, rows: BatchRows, vocab: int, eos_token_ids: Collection[int]) -> None:
        super().__init__(rows, vocab, eos_token_ids)
        self._uploaded: tuple[SamplingBatch, tuple[Tensor, ...]] | None = None

    @torch.inference_mode()
    def draft(self, logits: Tensor, rows: Ints) -> Draft:
        """Choose one token for each of `rows`; logits [N, vocab]."""
        batch = self._batch
        if batch is None or not batch.describes(rows, self._rows.version):
            batch = self._batch = SamplingBatch(self._rows, rows, logits.device)
        if batch.is_plain:
            return Draft(rows, best_tokens(logits), None, batch.num_logprobs)
        logits = logits.float()
        ids = self._chosen(self._edited(logits, rows, batch), rows, batch)
        if batch.max_logprobs < 0:
            return Draft(rows, ids, None, batch.num_logprobs)
        return Draft(rows, ids, self._table(logits, ids, batch), batch.num_logprobs)

    def warm_up(self, logits: Tensor) -> None:
        """Have penalties and the draw compiled for logits like these, [N, vocab]."""
        some = logits[:1].float()
        one = torch.ones(1, device=some.device)
        none = torch.zeros(1, dtype=torch.int64, device=some.device)
        ops.apply_penalties(
            some.clone(), none, none, torch.zeros_like(some, dtype=torch.int32),
            torch.zeros_like(some, dtype=torch.bool), one, one * 0.5, one * 0.5,
        )  # fmt: skip
        ops.sample_tokens(some, one, none.int() + 5, one * 0.9, one * 0.1, none, none, none)

    def _drawn(self, logits: Tensor, rows: Ints, batch: SamplingBatch) -> Tensor:
        if not logits.is_cuda:
            return super()._drawn(logits, rows, batch)
        positions = upload(self._rows.num_outputs[rows], logits.device)
        parameters = (*self._parameters(rows, batch, logits.device), positions)
        return ops.sample_tokens(logits, *parameters)

    def _parameters(
        self, rows: Ints, batch: SamplingBatch, device: torch.device
    ) -> tuple[Tensor, ...]:
        """What does not change from step to step, sent once for a set of rows."""
        if self._uploaded is None or self._uploaded[0] is not batch:
            state = self._rows
            columns: list[NDArray[Any]] = [
                state.sampling["temperature"][rows],
                state.sampling["top_k"][rows].astype(np.int32),
                state.sampling["top_p"][rows],
                state.sampling["min_p"][rows],
                state.seed[rows].view(np.int64),
                state.choice[rows].view(np.int64),
            ]
            self._uploaded = (batch, tuple(upload(column, device) for column in columns))
        return self._uploaded[1]
