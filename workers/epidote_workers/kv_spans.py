"""This file is about which parts of a prompt's KV are ready and not copied yet; pure.

A prefill works through the prompt in chunks, and through the layers in each chunk: the ready part
is a staircase. Copying follows it block by block, so a block whose tokens come with two chunks is
copied twice, the second time whole.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from epidote_engine.events import KvReady
from epidote_workers.messages import KvSpan


def merge_spans(spans: Sequence[KvReady]) -> list[KvReady]:
    """The same spans with neighbouring layers of one chunk put together."""
    merged: list[KvReady] = []
    for span in spans:
        last = merged[-1] if merged else None
        if (
            last is not None
            and last.end_layer == span.first_layer
            and (last.start_token, last.end_token) == (span.start_token, span.end_token)
            and last.block_ids == span.block_ids
        ):
            merged[-1] = replace(last, end_layer=span.end_layer)
        else:
            merged.append(span)
    return merged


@dataclass(frozen=True)
class Piece:
    """Blocks [first_block, end_block) of the prompt, in all of `layers`."""

    layers: range
    first_block: int
    end_block: int


class KvProgress:
    """What of one prompt is ready at its prefill, and what is copied to its decoder."""

    def __init__(self, *, num_layers: int, block_size: int, num_tokens: int, num_here: int) -> None:
        """The first `num_here` tokens are in place already and shared: never written again."""
        if num_here % block_size and num_here != num_tokens:
            raise ValueError(f"{num_here} tokens in place do not end with a block of {block_size}")
        self._block_size, self._num_tokens = block_size, num_tokens
        self._num_here = num_here
        self._copied = [num_here] * num_layers
        self._ready = [0] * num_layers
        self.source_blocks: tuple[int, ...] = ()

    def note(self, span: KvSpan) -> None:
        """More is ready. Other blocks than before: the prefill began anew, and so does this."""
        if span.block_ids is not None:
            if self.source_blocks and span.block_ids != self.source_blocks:
                self._copied = [self._num_here] * len(self._copied)
                self._ready = [0] * len(self._ready)
            self.source_blocks = span.block_ids
        for layer in range(len(self._ready)):
            inside = span.first_layer <= layer < span.end_layer
            ready = span.end_token if inside else span.start_token
            self._ready[layer] = max(self._ready[layer], ready)

    def all_ready(self) -> None:
        """The prefill is done."""
        self._ready = [self._num_tokens] * len(self._ready)

    def take(self) -> Iterator[Piece]:
        """Pieces to copy now; they count as copied from here on."""
        layer = 0
        while layer < len(self._ready):
            start, end = self._copied[layer], self._ready[layer]
            first = layer
            while layer < len(self._ready) and (start, end) == (
                self._copied[layer],
                self._ready[layer],
            ):
                self._copied[layer] = max(start, end)
                layer += 1
            if end > start:
                size = self._block_size
                yield Piece(range(first, layer), start // size, -(-end // size))
