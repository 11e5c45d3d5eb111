"""This file is about replaying decode steps as CUDA graphs, one per padded batch size."""

from typing import Any

import torch
from torch import Tensor

from epidote_engine.models.decoder import DecoderLM
from epidote_engine.models.step_inputs import StepInputs


def bucket_sizes(max_seqs: int) -> list[int]:
    """Padded batch sizes: powers of two to 8, multiples of 8 to 64, then of 32; `max_seqs` last.

    >>> bucket_sizes(20)
    [1, 2, 4, 8, 16, 20]
    """
    sizes = [1, 2, 4, *range(8, 65, 8), *range(96, max_seqs + 1, 32)]
    return [size for size in sizes if size < max_seqs] + [max_seqs]


class DecodeGraphs:
    """Captures a bucket the first time it comes; its inputs must be the same memory ever after."""

    def __init__(self, model: DecoderLM, kv: Tensor) -> None:
        self._model = model
        self._kv = kv
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._memory: Any = None  # shared by all graphs: one runs at a time

    def logits(self, inputs: StepInputs) -> Tensor:
        """Logits of every row; valid until the next call."""
        size = inputs.num_decodes
        if size not in self._captured:
            self._captured[size] = self._capture(inputs)
        graph, logits = self._captured[size]
        graph.replay()
        return logits

    def _capture(self, inputs: StepInputs) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            # compiles kernels and fills caches; writes the very KV that the replay writes again
            self._model.logits(self._model.forward(inputs, self._kv))
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._memory):
            logits = self._model.logits(self._model.forward(inputs, self._kv))
        self._memory = graph.pool()
        return graph, logits
