"""This file is about filling the step's input tensors: the same memory every step, so that a CUDA
graph can read it, written by a few array operations."""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from epidote_engine.events import MediaRows
from epidote_engine.layers.fresh_prompts import FreshPrompts
from epidote_engine.models.step_inputs import StepInputs
from epidote_engine.rows import BatchRows, Ints
from epidote_engine.sequence import IN_FLIGHT, Sequence
from epidote_engine.vision.upload import upload

Prefills = list[tuple[Sequence, int, int]]


class _Buffer:
    """An array on the host and its twin on the device (one and the same on a CPU).

    There are two arrays on the host, in turns: with overlapped steps one may still be on its way
    when the next step is written.
    """

    __slots__ = ("_other", "_pinned", "device", "host")

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> None:
        on_gpu = device.type == "cuda"
        self._pinned = torch.zeros(shape, dtype=dtype, pin_memory=on_gpu)
        self._other = torch.zeros(shape, dtype=dtype, pin_memory=True) if on_gpu else self._pinned
        self.host: NDArray[np.int64] = self._pinned.numpy()
        self.device = torch.zeros(shape, dtype=dtype, device=device) if on_gpu else self._pinned

    def turn(self) -> None:
        """Write to the other array from here on: what was sent from it has arrived."""
        self._pinned, self._other = self._other, self._pinned
        self.host = self._pinned.numpy()

    def sent(self, end: int) -> Tensor:
        """The first `end` entries on the device, copied there without waiting."""
        view = self.device[:end]
        if self.device is not self._pinned:
            view.copy_(self._pinned[:end], non_blocking=True)
        return view


class StepBuffers:
    """Buffers for `max_tokens` rows, of which `max_seqs` may belong to different sequences."""

    def __init__(
        self,
        rows: BatchRows,
        *,
        block_size: int,
        max_tokens: int,
        device: torch.device,
        joins_fresh_prompts: bool = True,
    ) -> None:
        """`joins_fresh_prompts`: `FreshPrompts` may read the KV pool, which holds no codes."""
        self._joins_fresh_prompts = joins_fresh_prompts and device.type == "cpu"
        self._rows = rows
        self._block_size = block_size
        seqs, blocks = rows.table.shape
        self._device = device
        self._tokens = _Buffer((max_tokens,), torch.int64, device)
        self._positions = _Buffer((max_tokens,), torch.int64, device)
        self._slots = _Buffer((max_tokens,), torch.int64, device)
        self._tables = _Buffer((seqs, blocks), torch.int32, device)
        self._lens = _Buffer((seqs,), torch.int32, device)
        self._starts = _Buffer((seqs + 1,), torch.int32, device)
        self._samples = _Buffer((seqs,), torch.int64, device)
        self._asking = _Buffer((seqs,), torch.int64, device)  # rows whose token is in flight
        self._sampled = _Buffer((seqs,), torch.int64, device)  # rows that get one
        self._carried = torch.zeros(rows.max_rows, dtype=torch.int64, device=device)

    def turn(self) -> None:
        """Begin a step while the last one may still be copying its inputs."""
        if self._device.type == "cuda":
            for buffer in (
                self._tokens, self._positions, self._slots, self._tables, self._lens,
                self._starts, self._samples, self._asking, self._sampled,
            ):  # fmt: skip
                buffer.turn()

    def carry(self, rows: Ints, token_ids: Tensor) -> None:
        """Keep the tokens sampled for `rows` on the device, where the next step finds them.

        One that was not to be had (< 0) is read as token 0: its row is computed in vain.
        """
        count = len(rows)
        self._sampled.host[:count] = rows
        self._carried.index_copy_(0, self._sampled.sent(count), token_ids.clamp(min=0))

    def idle_chunk(self, count: int) -> StepInputs:
        """A chunk of `count` tokens of nobody: read from block 0, written nowhere."""
        on, width = self._device, -(-count // self._block_size)
        return StepInputs.chunk(
            torch.zeros(count, dtype=torch.int64, device=on),
            torch.arange(count, device=on),
            torch.full((count,), -1, dtype=torch.int64, device=on),
            torch.zeros((1, width), dtype=torch.int32, device=on),
        )

    def _tokens_sent(self, end: int, rows: Ints) -> Tensor:
        """The step's tokens on the device; decodes of `rows` come first, maybe in flight."""
        count = len(rows)
        in_flight = bool((self._tokens.host[:count] == IN_FLIGHT).any())
        sent = self._tokens.sent(end)
        if in_flight:
            self._asking.host[:count] = rows
            carried = self._carried.index_select(0, self._asking.sent(count))
            decodes = sent[:count]
            decodes.copy_(torch.where(decodes == IN_FLIGHT, carried, decodes))
        return sent

    def decodes(self, rows: Ints, padded: int | None = None) -> StepInputs:
        """Inputs of a step without prefill.

        `padded` is a number of rows to fill up to; then block tables have their full width as
        well, and every tensor's shape depends on `padded` alone.
        """
        count = len(rows)
        self._write_decodes(rows)
        if padded is None:
            end, width = count, self._width(rows)
        else:
            end, width = padded, self._tables.host.shape[1]
            self._tokens.host[count:end] = 0
            self._positions.host[count:end] = 0
            self._slots.host[count:end] = -1
            self._lens.host[count:end] = 0
            self._tables.host[count:end] = 0
        self._tables.host[:count, :width] = self._rows.table[rows, :width]
        tables = self._tables.sent(end)[:, :width]
        lens = self._lens.sent(end)
        return StepInputs(
            token_ids=self._tokens_sent(end, rows),
            positions=self._positions.sent(end),
            slots=self._slots.sent(end),
            num_decodes=end,
            decode_tables=tables,
            decode_lens=lens,
            prefill_tables=tables[:0],
            prefill_lens=lens[:0],
            cu_q_lens=self._starts.device[:1],
        )

    def mixed(
        self, rows: Ints, prefills: Prefills, axes: Callable[[Sequence, int, int], Ints | None]
    ) -> StepInputs:
        """Inputs of a step with prefill chunks behind the decodes of `rows`.

        `axes` gives positions [3, n] of a chunk where they are not simply its token indices.
        """
        split = len(rows)
        self._write_decodes(rows)
        token = split
        three: list[tuple[int, Ints]] = []
        samples = list(range(split))
        self._starts.host[0] = 0
        for number, (seq, start, end) in enumerate(prefills):
            stop = token + end - start
            self._tokens.host[token:stop] = seq.token_ids[start:end]
            index = np.arange(start, end)
            self._positions.host[token:stop] = index
            self._slots.host[token:stop] = self._slots_of(np.int64(seq.row), index)
            if (positions := axes(seq, start, end)) is not None:
                three.append((token, positions))
            if end == len(seq.token_ids):
                samples.append(stop - 1)
            self._lens.host[split + number] = end
            self._starts.host[number + 1] = stop - split
            token = stop
        every = np.concatenate((rows, [seq.row for seq, _, _ in prefills])).astype(np.int64)
        count = len(every)
        width = -(-int(self._lens.host[:count].max()) // self._block_size)
        self._tables.host[:count, :width] = self._rows.table[every, :width]
        tables, lens = self._tables.sent(count)[:, :width], self._lens.sent(count)
        self._samples.host[: len(samples)] = samples
        slots = self._slots.sent(token)
        fresh = None
        if self._joins_fresh_prompts and not any(start for _, start, _ in prefills):
            fresh = FreshPrompts.of([end for _, _, end in prefills], slots[split:])
        return StepInputs(
            token_ids=self._tokens_sent(token, rows),
            positions=self._three_axes(token, three) if three else self._positions.sent(token),
            slots=slots,
            num_decodes=split,
            decode_tables=tables[:split],
            decode_lens=lens[:split],
            prefill_tables=tables[split:],
            prefill_lens=lens[split:],
            cu_q_lens=self._starts.sent(len(prefills) + 1),
            max_q_len=max(end - start for _, start, end in prefills),
            sample_rows=self._samples.sent(len(samples)),
            fresh_prompts=fresh,
        )

    def _write_decodes(self, rows: Ints) -> None:
        count, state = len(rows), self._rows
        lens = state.num_tokens[rows]
        index = lens - 1
        self._tokens.host[:count] = state.last_token[rows]
        self._positions.host[:count] = index + state.delta[rows]
        self._slots.host[:count] = self._slots_of(rows, index)
        self._lens.host[:count] = lens

    def _slots_of(self, rows: Ints | np.int64, index: Ints) -> Ints:
        size = self._block_size
        blocks = self._rows.table[rows, index // size].astype(np.int64)
        slots: Ints = blocks * size + index % size
        return slots

    def _width(self, rows: Ints) -> int:
        return -(-int(self._lens.host[: len(rows)].max(initial=1)) // self._block_size)

    def _three_axes(self, count: int, chunks: list[tuple[int, Ints]]) -> Tensor:
        positions = np.tile(self._positions.host[:count], (3, 1))
        for start, axes in chunks:
            positions[:, start : start + axes.shape[1]] = axes
        return upload(positions, self._device)


def media_places(
    prefills: Prefills, first_row: int, rows_of: Callable[[str], MediaRows]
) -> tuple[Ints, Ints] | None:
    """(rows of the step that are placeholders, rows of the media pool that replace them).

    `first_row` is the step's row of the first chunk's first token.
    """
    targets: list[Ints] = []
    sources: list[Ints] = []
    row = first_row
    for seq, start, end in prefills:
        for span in seq.request.media:
            if span.offset >= end or span.end <= start:
                continue
            lying = np.concatenate([np.arange(r.start, r.stop) for r in rows_of(span.key).rows])
            before = 0
            for offset, count in span.token_runs:
                low, high = max(start, offset), min(end, offset + count)
                if low < high:
                    targets.append(np.arange(row + low - start, row + high - start))
                    sources.append(lying[before + low - offset : before + high - offset])
                before += count
        row += end - start
    if not targets:
        return None
    return np.concatenate(targets), np.concatenate(sources)
