"""This file is about the smallest way to run a model: one sequence, greedy, no engine.

For checking models by themselves (tests, debugging): what goes wrong here is no scheduler's fault.
"""

import numpy as np
import torch
from torch import Tensor

from epidote_core.generation import MediaPixels, MediaSpan
from epidote_engine.config import ModelSpec
from epidote_engine.layers.mrope_positions import mrope_positions
from epidote_engine.models.decoder import DecoderLM
from epidote_engine.models.step_inputs import StepInputs
from epidote_engine.vision.encoder import VisionEncoder
from epidote_engine.weights import language_weights, vision_weights

BLOCK_SIZE = 16


class OneSequence:
    """A model with its weights on one device."""

    def __init__(
        self, spec: ModelSpec, *, dtype: torch.dtype, device: torch.device | str = "cpu"
    ) -> None:
        self.spec, self.device = spec, torch.device(device)
        language = language_weights(spec, dtype=dtype, device=device)
        self.model = DecoderLM(spec.decoder, language, dtype, device)
        self.encoder: VisionEncoder | None = None
        if spec.vision is not None:
            vision = vision_weights(spec, dtype=dtype, device=device)
            self.encoder = VisionEncoder(spec, vision, dtype, device)

    @torch.inference_mode()
    def generate(
        self,
        token_ids: tuple[int, ...],
        spans: tuple[MediaSpan, ...] = (),
        media: tuple[MediaPixels, ...] = (),
        *,
        num_tokens: int,
        chunk_tokens: int | None = None,
    ) -> tuple[list[int], Tensor]:
        """(greedy tokens, logits [num_tokens, vocab] in fp32); the prompt goes in by chunks."""
        config, known = self.spec.decoder, list(token_ids)
        blocks = -(-(len(known) + num_tokens) // BLOCK_SIZE)
        kv = torch.zeros(
            config.num_layers,
            2,
            blocks,
            BLOCK_SIZE,
            config.num_kv_heads,
            config.head_dim,
            dtype=self.model.dtype,
            device=self.device,
        )
        rows, places = self._media(spans, media)
        found: list[Tensor] = []
        done, step = 0, chunk_tokens or len(known)
        while len(found) < num_tokens:
            end = min(len(known), done + step)
            inputs = self._inputs(known, done, end, blocks, spans)
            here = [i for i, place in enumerate(places) if done <= place < end]
            if here:
                inputs.media = rows[here]
                inputs.media_rows = self._ints([places[i] - done for i in here])
            hidden = self.model.forward(inputs, kv)
            done = end
            if done == len(known):
                found.append(self.model.logits(hidden)[0].float())
                known.append(int(found[-1].argmax()))
        return known[len(token_ids) :], torch.stack(found)

    def _media(
        self, spans: tuple[MediaSpan, ...], media: tuple[MediaPixels, ...]
    ) -> tuple[Tensor, list[int]]:
        """All embedding rows and the token index of each."""
        if not media or self.encoder is None:
            return torch.empty(0), []
        rows = torch.cat(self.encoder.encode(media))
        return rows, [
            token
            for span in spans
            for offset, count in span.token_runs
            for token in range(offset, offset + count)
        ]

    def _inputs(
        self, known: list[int], start: int, end: int, blocks: int, spans: tuple[MediaSpan, ...]
    ) -> StepInputs:
        positions, _ = mrope_positions(len(known), spans, self.spec)
        here = positions[:, start:end] if self.spec.vision else positions[0, start:end]
        table = self._ints(range(blocks)).to(torch.int32)[None]
        count = end - start
        return StepInputs(
            token_ids=self._ints(known[start:end]),
            positions=torch.from_numpy(np.ascontiguousarray(here)).to(self.device),
            slots=self._ints(range(start, end)),
            num_decodes=0,
            decode_tables=table[:0],
            decode_lens=table[0, :0],
            prefill_tables=table,
            prefill_lens=self._ints([end]).to(torch.int32),
            cu_q_lens=self._ints([0, count]).to(torch.int32),
            max_q_len=count,
            sample_rows=self._ints([count - 1]),
        )

    def _ints(self, values: list[int] | range) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64, device=self.device)
