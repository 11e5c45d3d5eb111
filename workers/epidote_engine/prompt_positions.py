"""This file is about the positions of prompts with media, which are not their tokens' indices."""

from typing import TYPE_CHECKING

from epidote_engine.layers.mrope_positions import Positions, mrope_positions
from epidote_engine.rows import Ints
from epidote_engine.sequence import Sequence

if TYPE_CHECKING:
    from epidote_engine.config import ModelSpec


class PromptPositions:
    """Computed once per sequence with media; prompts of text alone need nothing here."""

    def __init__(self, spec: "ModelSpec") -> None:
        self._spec = spec
        self._known: dict[Sequence, tuple[Positions, int]] = {}

    def delta(self, seq: Sequence) -> int:
        """Position of a generated token minus its index."""
        return self._of(seq)[1] if seq.request.media else 0

    def axes(self, seq: Sequence, start: int, end: int) -> Ints | None:
        """Positions [3, end - start] of a chunk; None: the token indices, on every axis."""
        if not seq.request.media:
            return None
        positions, delta = self._of(seq)
        if end <= positions.shape[1]:
            return positions[:, start:end]
        longer, _ = mrope_positions(end, seq.request.media, self._spec)
        self._known[seq] = (longer, delta)
        return longer[:, start:end]

    def forget(self, seq: Sequence) -> None:
        self._known.pop(seq, None)

    def _of(self, seq: Sequence) -> tuple[Positions, int]:
        if seq not in self._known:
            self._known[seq] = mrope_positions(len(seq.token_ids), seq.request.media, self._spec)
        return self._known[seq]
