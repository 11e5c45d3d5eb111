"""This file is about carrying out a plan on the device: move blocks, one pass, sample."""

from collections.abc import Callable, Collection

import numpy as np
import torch
from torch import Tensor

from epidote_engine.decode_graphs import DecodeGraphs, bucket_sizes
from epidote_engine.device_events import Record
from epidote_engine.drafts import Draft, DraftingSampler
from epidote_engine.events import KvReady, MediaRows
from epidote_engine.layer_events import LayerEvents
from epidote_engine.models.cpu_decode import CpuDecode
from epidote_engine.models.decoder import DecoderLM
from epidote_engine.models.native_decode import NativeDecode
from epidote_engine.plan import Plan
from epidote_engine.rows import BatchRows, Ints
from epidote_engine.sampler import Sampled
from epidote_engine.sequence import Mode, Sequence
from epidote_engine.step_buffers import StepBuffers, media_places
from epidote_engine.vision.upload import upload

OnLayer = Callable[[list[KvReady]], None]


class Runner:
    """The language model on its device. A step waits for the device once, or, overlapped, not."""

    def __init__(
        self,
        model: DecoderLM,
        kv: Tensor,
        media: Tensor,
        rows: BatchRows,
        *,
        max_tokens: int,
        eos_token_ids: Collection[int],
        static_shapes: bool,
        cuda_graphs: bool,
        overlaps: bool = False,
        lean: bool = True,
        native: bool = True,
        record: Record | None = None,
        layer_events: LayerEvents | None = None,
    ) -> None:
        """`lean`: on a CPU, a shorter path for decodes may be taken; `native`: the compiled one.

        `record`: an event behind what the device was given; None: it is done when a call returns.
        `layer_events`: layers are told of when these say so, not when they are enqueued.
        """
        self.model = model
        self._kv = kv
        has_codes = kv.dtype is not model.dtype
        # torch cannot index e4m3 numbers on every device; as integers of a byte it can
        self._stored = kv.view(torch.int8) if kv.itemsize == 1 else kv
        self._media = media
        self._rows = rows
        self._buffers = StepBuffers(
            rows,
            block_size=kv.shape[3],
            max_tokens=max_tokens,
            device=model.device,
            joins_fresh_prompts=not has_codes,
        )
        self._sampler = DraftingSampler(rows, model.config.vocab, eos_token_ids)
        self._overlaps = overlaps
        self._buckets = bucket_sizes(rows.max_rows) if static_shapes else []
        self._graphs = DecodeGraphs(model, kv) if cuda_graphs else None
        lean = lean and model.device.type == "cpu" and not static_shapes and not overlaps
        lean = lean and not has_codes
        self._cpu_decode: NativeDecode | CpuDecode | None = None
        if lean:
            compiled = NativeDecode.of(model, kv, rows) if native else None
            self._cpu_decode = compiled or CpuDecode(model, kv, rows)
        self._record = record
        self._layer_events = layer_events
        self._parked: dict[Sequence, Tensor] = {}

    @torch.inference_mode()
    def warm_up(self, chunk_tokens: int) -> None:
        """Compile, tune and capture whatever a request would otherwise wait for; no KV is written.

        Every decode bucket, a prefill chunk of `chunk_tokens`, and the sampler.
        """
        none = np.empty(0, np.int64)
        logits: Tensor | None = None
        for size in self._buckets:
            inputs = self._buffers.decodes(none, size)
            if self._graphs is not None:
                logits = self._graphs.logits(inputs)
            else:
                logits = self.model.logits(self.model.forward(inputs, self._kv))
        chunk = self._buffers.idle_chunk(chunk_tokens)
        logits = self.model.logits(self.model.forward(chunk, self._kv))
        self._sampler.warm_up(logits)
        if logits.is_cuda:
            torch.cuda.synchronize()

    def move_blocks(self, plan: Plan) -> None:
        """Saves, copies and restores of `plan`, in this order."""
        for seq, blocks in plan.saves:
            self._parked[seq] = self._stored[:, :, blocks].cpu()
        for source, target in plan.copies:
            self._stored[:, :, target] = self._stored[:, :, source]
        for seq in plan.restores:
            saved = self._parked.pop(seq)
            self._stored[:, :, seq.blocks[: saved.shape[2]]] = saved.to(self._kv.device)

    def forget(self, seq: Sequence) -> None:
        """Drop what is kept for a sequence that ended."""
        self._parked.pop(seq, None)

    @property
    def parked(self) -> Collection[Sequence]:
        """Sequences whose KV is in host memory."""
        return self._parked.keys()

    @torch.inference_mode()
    def step(
        self,
        plan: Plan,
        *,
        axes: Callable[[Sequence, int, int], Ints | None],
        media_rows: Callable[[str], MediaRows],
        on_layer: OnLayer | None,
    ) -> Sampled | Draft:
        """Run the model on `plan` and sample: one token per decode, then per finished prompt.

        Overlapped, a draft comes back before the device is done: the next step may be given at
        once, and finds these tokens where they are. A draft as well where nothing is sampled.
        """
        rows = np.array([seq.row for seq in plan.decodes], np.int64)
        if self._overlaps:
            self._buffers.turn()
        if not plan.prefills:
            return self._sample(self._decode(rows), rows)
        inputs = self._buffers.mixed(rows, plan.prefills, axes)
        places = media_places(plan.prefills, len(rows), media_rows)
        if places is not None:
            targets, sources = (upload(p, self.model.device) for p in places)
            inputs.media_rows, inputs.media = targets, self._media.index_select(0, sources)
        if on_layer is not None and self._layer_events is not None:
            on_layer = self._layer_events.behind(on_layer)
        hook = _layer_hook(plan, on_layer) if on_layer is not None else None
        hidden = self.model.forward(inputs, self._kv, hook)
        done = [seq.row for seq, _, end in plan.prefills if end == len(seq.token_ids)]
        rows = np.concatenate((rows, np.array(done, np.int64)))
        if not len(rows):
            return self._behind_all(Draft.of_nothing())
        return self._sample(self.model.logits(hidden), rows)

    def _sample(self, logits: Tensor, rows: Ints) -> Sampled | Draft:
        if not self._overlaps:
            return self._sampler.sample(logits, rows)
        draft = self._sampler.draft(logits, rows)
        self._buffers.carry(rows, draft.ids)
        return self._behind_all(draft)

    def _behind_all(self, draft: Draft) -> Draft:
        """Nothing of the step comes later: its inputs may be overwritten, its blocks given away."""
        return draft if self._record is None else draft.behind(self._record())

    def _decode(self, rows: Ints) -> Tensor:
        if self._cpu_decode is not None:
            logits = self._cpu_decode.logits(rows)
            if logits is not None:
                return logits
        padded = next((size for size in self._buckets if size >= len(rows)), None)
        inputs = self._buffers.decodes(rows, padded)
        if self._graphs is not None and padded is not None:
            return self._graphs.logits(inputs)[: len(rows)]
        return self.model.logits(self.model.forward(inputs, self._kv))[: len(rows)]


def _layer_hook(plan: Plan, on_layer: OnLayer) -> Callable[[int], None] | None:
    """Tells about each layer of the chunks that a peer waits for."""
    chunks = [
        (seq.request_id, tuple(seq.blocks), start, end)
        for seq, start, end in plan.prefills
        if seq.mode is Mode.PREFILL
    ]
    if not chunks:
        return None

    def after_layer(layer: int) -> None:
        on_layer(
            [
                KvReady(
                    request_id=request_id, block_ids=blocks, start_token=start, end_token=end,
                    first_layer=layer, end_layer=layer + 1,
                )
                for request_id, blocks, start, end in chunks
            ]
        )  # fmt: skip

    return after_layer
