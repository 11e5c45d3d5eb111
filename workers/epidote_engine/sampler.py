"""This file is about choosing the next token of each sequence from its logits.

Order, as vLLM has it: bias and min_tokens, penalties (repetition over prompt and output, presence
and frequency over output), temperature, top-k, top-p (of what top-k left), min-p. Log-probabilities
are of the raw distribution: log-softmax of the logits before all of that.

A row has nothing to choose from where its best logit is not finite: NaN or infinity out of the
model (fp16 overflows at 65504), or every token ruled out. Such a row gets `NO_TOKEN` and no other
row notices; the mark travels with the ids, so that finding it waits for nothing more.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epidote_core.generation import TokenLogprob
from epidote_engine.random_numbers import uniforms
from epidote_engine.rows import BatchRows, Ints
from epidote_engine.sampling_batch import SamplingBatch
from epidote_engine.vision.upload import upload
from epidote_kernels import ops

NO_TOKEN = -1  # also of ops.sample_tokens


@dataclass(frozen=True, slots=True)
class Sampled:
    """One step's choice on the host for `rows` [N]; logprobs only where a row wants them.

    `NO_TOKEN` where a row had no usable distribution: its request can't go on.
    """

    rows: Ints
    token_ids: Ints
    logprobs: list[TokenLogprob | None]


class Sampler:
    """Owns what must be kept on the device between steps: token counts of penalised rows."""

    def __init__(self, rows: BatchRows, vocab: int, eos_token_ids: Collection[int]) -> None:
        self._rows = rows
        self._vocab = vocab
        self._eos = tuple(eos_token_ids)
        self._counts: Tensor | None = None  # int32 [rows, vocab]: output tokens
        self._in_prompt: Tensor | None = None  # bool [rows, vocab]
        self._counted = np.zeros(
            rows.max_rows, np.int64
        )  # the `stay` for which a row's counts were rebuilt
        self._batch: SamplingBatch | None = None

    @torch.inference_mode()
    def sample(self, logits: Tensor, rows: Ints) -> Sampled:
        """Choose one token for each of `rows`; logits [N, vocab]. One copy to the host."""
        batch = self._batch
        if batch is None or not batch.describes(rows, self._rows.version):
            batch = self._batch = SamplingBatch(self._rows, rows, logits.device)
        if batch.is_plain:
            return Sampled(rows, _best(logits), [None] * len(rows))
        raw = logits.float()
        ids = self._chosen(self._edited(raw, rows, batch), rows, batch)
        return self._on_host(raw, rows, ids, batch)

    def _chosen(self, logits: Tensor, rows: Ints, batch: SamplingBatch) -> Tensor:
        """One token for each row, and noted where there are penalties; logits are edited."""
        ids = best_tokens(logits)
        if batch.is_random:
            ids = torch.where(batch.greedy | (ids < 0), ids, self._drawn(logits, rows, batch))
        if batch.penalised is not None:
            assert self._counts is not None
            where = batch.penalised_rows
            self._counts.index_put_(
                (where, ids[batch.penalised].clamp(min=0)),
                torch.ones_like(where, dtype=torch.int32),
                accumulate=True,
            )
        return ids

    def _edited(self, logits: Tensor, rows: Ints, batch: SamplingBatch) -> Tensor:
        """Bias, min_tokens and penalties; a new tensor unless there is nothing to do."""
        edited = logits
        if (edits := batch.edits(self._eos, self._vocab)) is not None:
            places, tokens, values = edits
            edited = logits.index_put((places, tokens), values, accumulate=True)
        if batch.penalised is not None:
            for row in rows[batch.penalised_host].tolist():
                self._count(row, logits.device)
            assert self._counts is not None
            assert self._in_prompt is not None
            edited = logits.clone() if edited is logits else edited
            ops.apply_penalties(
                edited, batch.penalised, batch.penalised_rows, self._counts, self._in_prompt,
                *batch.penalties,
            )  # fmt: skip
        return edited

    def _count(self, row: int, device: torch.device) -> None:
        """Count a row's tokens if it has a new owner."""
        if self._counts is None or self._in_prompt is None:
            shape = (self._rows.max_rows, self._vocab)
            self._counts = torch.zeros(shape, dtype=torch.int32, device=device)
            self._in_prompt = torch.zeros(shape, dtype=torch.bool, device=device)
        seq = self._rows.owners[row]
        assert seq is not None, "a sampled row has an owner"
        if self._counted[row] == self._rows.stay[row]:
            return
        self._counted[row] = self._rows.stay[row]
        tokens = upload(np.array(seq.token_ids, np.int64), device)
        prompt, outputs = tokens[: seq.prompt_len], tokens[seq.prompt_len :]
        self._in_prompt[row].zero_().index_fill_(0, prompt, True)
        self._counts[row].zero_().index_add_(
            0, outputs, torch.ones_like(outputs, dtype=torch.int32)
        )

    def _drawn(self, logits: Tensor, rows: Ints, batch: SamplingBatch) -> Tensor:
        """Inverse of the cumulative distribution, in vocabulary order, at one number a row.

        `NO_TOKEN` where the temperature or a filter left no finite logit.
        """
        logits = logits / batch.column("temperature").clamp(min=1e-6)
        logits = _filtered(logits, batch)
        best = logits.amax(-1, keepdim=True)
        weights = (logits - best).exp().double()
        cumulative = weights.cumsum(-1)
        state = self._rows
        numbers = uniforms(state.seed[rows], state.choice[rows], state.num_outputs[rows])
        targets = torch.from_numpy(numbers).to(logits.device).unsqueeze(1) * cumulative[:, -1:]
        below = torch.nextafter(cumulative[:, -1:], torch.zeros_like(targets))
        drawn = torch.searchsorted(cumulative, torch.minimum(targets, below), right=True)
        return torch.where(best.isfinite(), drawn, NO_TOKEN).squeeze(1)

    def _on_host(self, raw: Tensor, rows: Ints, ids: Tensor, batch: SamplingBatch) -> Sampled:
        if batch.max_logprobs < 0:
            return Sampled(rows, ids.cpu().numpy(), [None] * len(ids))
        return _unpacked(self._table(raw, ids, batch).cpu().numpy(), rows, batch.num_logprobs)

    def _table(self, raw: Tensor, ids: Tensor, batch: SamplingBatch) -> Tensor:
        """Columns: id, its logprob, the k best logprobs, their ids."""
        logprobs = raw.log_softmax(-1)
        chosen = logprobs.gather(1, ids.clamp(min=0).unsqueeze(1))
        top, top_ids = logprobs.topk(min(batch.max_logprobs, self._vocab), dim=-1)
        # ids below 2²⁴ fit into float32 exactly: everything leaves the device in one piece
        return torch.cat((ids.unsqueeze(1).float(), chosen, top, top_ids.float()), 1)


def best_tokens(logits: Tensor) -> Tensor:
    """The most likely token of each row [N], `NO_TOKEN` where its logit is not finite; NaN wins."""
    best = logits.max(-1)
    return torch.where(best.values.isfinite(), best.indices, NO_TOKEN)


def _best(logits: Tensor) -> Ints:
    """`best_tokens` on the host."""
    if logits.device.type == "cpu" and logits.dtype is torch.float32:
        values = logits.numpy()
        best: Ints = values.argmax(-1)  # several times as fast as torch's; NaN wins here too
        best[~np.isfinite(values[np.arange(len(best)), best])] = NO_TOKEN
        return best
    return best_tokens(logits).cpu().numpy()


def _unpacked(table: NDArray[np.float32], rows: Ints, wanted: Ints) -> Sampled:
    """Columns: id, its logprob, k best logprobs, their ids."""
    token_ids = table[:, 0].astype(np.int64)
    width = (table.shape[1] - 2) // 2
    logprobs: list[TokenLogprob | None] = []
    for line, token, count in zip(table.tolist(), token_ids.tolist(), wanted.tolist(), strict=True):
        if count < 0:
            logprobs.append(None)
            continue
        best = zip(map(int, line[2 + width :][:count]), line[2 : 2 + width][:count], strict=True)
        logprobs.append(TokenLogprob(token_id=token, logprob=line[1], top=tuple(best)))
    return Sampled(rows, token_ids, logprobs)


def _filtered(logits: Tensor, batch: SamplingBatch) -> Tensor:
    """-inf for what top-k, top-p and min-p exclude. The most likely token always stays.

    All three keep the tokens above a threshold, so that equals are kept together.
    """
    if batch.sort_width:
        top_k, top_p = batch.column("top_k"), batch.column("top_p")
        best = logits.topk(min(batch.sort_width, logits.shape[1]), dim=-1).values
        last = (top_k - 1).clamp(0, best.shape[1] - 1)
        floor = torch.where(top_k > 0, best.gather(1, last), -torch.inf)
        if batch.any_top_p:
            kept = best.masked_fill(best < floor, -torch.inf).softmax(-1)
            before = kept.cumsum(-1) - kept
            nucleus = best.masked_fill(before >= top_p, torch.inf).amin(-1, keepdim=True)
            floor = torch.where(top_p < 1, torch.maximum(floor, nucleus), floor)
        logits = logits.masked_fill(logits < floor, -torch.inf)
    if batch.any_min_p:
        floor = logits.amax(-1, keepdim=True) + batch.column("min_p").log()
        logits = logits.masked_fill(logits < floor, -torch.inf)
    return logits
