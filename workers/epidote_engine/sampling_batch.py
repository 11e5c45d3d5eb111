"""This file is about what the rows of one batch ask of the sampler, sent to the device once.

Everything goes through page-locked memory and waits for nothing: a step may be running.
"""

from collections.abc import Collection
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from epidote_engine.rows import BatchRows, Ints
from epidote_engine.sequence import Sequence
from epidote_engine.vision.upload import upload


class SamplingBatch:
    """Sampling parameters of one set of rows; built when the set changes."""

    def __init__(self, rows: BatchRows, chosen: Ints, device: torch.device) -> None:
        self._rows = rows
        self._chosen = chosen.copy()
        self._chosen_bytes = chosen.tobytes()  # comparing arrays costs 50 µs between two steps
        self._version = rows.version
        self._device = device
        self._columns: dict[str, Tensor] = {}
        self.is_plain = bool(rows.is_plain[chosen].all())
        sampling = {name: values[chosen] for name, values in rows.sampling.items()}
        random = sampling["temperature"] > 0
        self.is_random = bool(random.any())
        self.any_top_p = bool((random & (sampling["top_p"] < 1)).any())
        self.any_min_p = bool((random & (sampling["min_p"] > 0)).any())
        any_top_k = bool((random & (sampling["top_k"] > 0)).any())
        every_top_k = bool((~random | (sampling["top_k"] > 0) | (sampling["top_p"] >= 1)).all())
        self.sort_width = 0
        if self.any_top_p or any_top_k:
            # top-p alone needs the whole vocabulary sorted; behind a top-k its k is enough
            widest = int(sampling["top_k"].max()) if every_top_k else 2**31
            self.sort_width = max(widest, 1)
        self.num_logprobs = rows.num_logprobs[chosen]
        self.max_logprobs = int(self.num_logprobs.max(initial=-1))
        self.penalised_host = np.array(
            [i for i, row in enumerate(chosen) if rows.has_penalties(int(row))], np.int64
        )
        self._editing = [
            i
            for i, row in enumerate(chosen)
            if (seq := rows.owners[row]) is not None
            and (seq.request.sampling.logit_bias or seq.request.sampling.min_tokens)
        ]
        self._edits: tuple[Tensor, Tensor, Tensor] | None = None
        self._edits_of: list[bool] | None = None  # who was short of tokens when they were made

    def describes(self, rows: Ints, version: int) -> bool:
        return version == self._version and rows.tobytes() == self._chosen_bytes

    @cached_property
    def greedy(self) -> Tensor:
        return (self.column("temperature") == 0).squeeze(1)

    @cached_property
    def penalised(self) -> Tensor | None:
        """Indices into the batch; None: no row has penalties."""
        if not len(self.penalised_host):
            return None
        return upload(self.penalised_host, self._device)

    @cached_property
    def penalised_rows(self) -> Tensor:
        return upload(self._chosen[self.penalised_host], self._device)

    @cached_property
    def penalties(self) -> tuple[Tensor, Tensor, Tensor]:
        """Repetition, frequency, presence of the penalised rows, each [M]."""
        penalised = self.penalised
        names = ("repetition_penalty", "frequency_penalty", "presence_penalty")
        repetition, frequency, presence = (
            self.column(name).squeeze(1)[penalised].contiguous() for name in names
        )
        return repetition, frequency, presence

    def edits(
        self, eos_token_ids: Collection[int], vocab: int
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        """Rows of the batch, tokens, and what is added to their logits: bias and min_tokens.

        Sent when a row first has its `min_tokens`, else once for a set of rows.
        """
        if not self._editing:
            return None
        owners = [(i, seq) for i in self._editing if (seq := self._rows.owners[self._chosen[i]])]
        short = [seq.num_outputs < seq.request.sampling.min_tokens for _, seq in owners]
        if short != self._edits_of:
            self._edits_of = short
            self._edits = self._made_edits(owners, short, eos_token_ids, vocab)
        return self._edits

    def _made_edits(
        self,
        owners: list[tuple[int, Sequence]],
        short: list[bool],
        eos_token_ids: Collection[int],
        vocab: int,
    ) -> tuple[Tensor, Tensor, Tensor] | None:
        places: list[tuple[int, int, float]] = []
        for (index, seq), is_short in zip(owners, short, strict=True):
            sampling = seq.request.sampling
            places += [(index, token, bias) for token, bias in sampling.logit_bias]
            if is_short:
                eos = () if sampling.ignore_eos else eos_token_ids
                banned = {*sampling.stop_token_ids, *eos}
                places += [(index, token, -np.inf) for token in banned]
        places = [place for place in places if 0 <= place[1] < vocab]
        if not places:
            return None
        rows, tokens, values = zip(*places, strict=True)
        return (
            upload(np.array(rows, np.int64), self._device),
            upload(np.array(tokens, np.int64), self._device),
            upload(np.array(values, np.float32), self._device),
        )

    def column(self, name: str) -> Tensor:
        """One parameter of every row, [N, 1]."""
        if name not in self._columns:
            values = upload(self._rows.sampling[name][self._chosen], self._device)
            self._columns[name] = values.unsqueeze(1)
        return self._columns[name]
