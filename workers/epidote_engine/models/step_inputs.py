"""This file is about what one step of the language model reads."""

from dataclasses import dataclass

import torch
from torch import Tensor

from epidote_engine.layers.fresh_prompts import FreshPrompts


@dataclass(slots=True, eq=False, kw_only=True)
class StepInputs:
    """A batch flattened to T rows: one row per decoding sequence first, then prefill chunks.

    token_ids       [T]  int64
    positions       [T]  int64, or [3, T] for a model with multimodal positions
    slots           [T]  int64, where each row's KV goes; -1: padding, nowhere
    num_decodes     rows that are single decode tokens
    decode_tables   [num_decodes, MB]  int32;  decode_lens  [num_decodes]  int32 (0: padding)
    prefill_tables  [S, MB]  int32;  prefill_lens  [S]  int32;  cu_q_lens  [S + 1]  int32
    max_q_len       longest chunk; 0: no prefill in this step
    sample_rows     [N]  int64: rows whose next token is wanted; None: every row, in order
    media_rows      [M]  int64: placeholders' rows; media  [M, hidden·(1 + num_deepstack)]
    fresh_prompts   CPU: every chunk is a whole prompt, and they are attended together
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    num_decodes: int
    decode_tables: Tensor
    decode_lens: Tensor
    prefill_tables: Tensor
    prefill_lens: Tensor
    cu_q_lens: Tensor
    max_q_len: int = 0
    sample_rows: Tensor | None = None
    media_rows: Tensor | None = None
    media: Tensor | None = None
    fresh_prompts: FreshPrompts | None = None

    @classmethod
    def chunk(
        cls, token_ids: Tensor, positions: Tensor, slots: Tensor, table: Tensor
    ) -> "StepInputs":
        """The first tokens [T] of one sequence with blocks `table` [1, MB]; the last is sampled."""
        count = len(token_ids)
        starts = torch.tensor([0, count], dtype=torch.int32, device=token_ids.device)
        return cls(
            token_ids=token_ids,
            positions=positions,
            slots=slots,
            num_decodes=0,
            decode_tables=table[:0],
            decode_lens=starts[:0],
            prefill_tables=table,
            prefill_lens=starts[1:],
            cu_q_lens=starts,
            max_q_len=count,
            sample_rows=torch.tensor([count - 1], device=token_ids.device),
        )
