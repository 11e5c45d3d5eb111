"""This file is about one step as it was decided: who computes what, and which blocks move."""

from dataclasses import dataclass, field

from epidote_engine.sequence import Sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Sizes that bound a step."""

    max_num_seqs: int
    max_batched_tokens: int
    chunk_tokens: int
    prefix_caching: bool = True


@dataclass(slots=True)
class Plan:
    """One step. The owner of the tensors does, in this order: saves, copies, restores, the pass.

    saves     sequences whose KV must move to host memory, and the blocks that hold it
    copies    (source block, target block), one after the other
    restores  sequences whose KV must come back from host memory into the first of `blocks`
    prefills  (sequence, first token, one past the last token)
    granted   reservations: told of once the saves, and the step before, are done
    completed (sequence, tokens computed) of those that may have a full block now
    """

    decodes: list[Sequence] = field(default_factory=list)
    prefills: list[tuple[Sequence, int, int]] = field(default_factory=list)
    saves: list[tuple[Sequence, list[int]]] = field(default_factory=list)
    copies: list[tuple[int, int]] = field(default_factory=list)
    restores: list[Sequence] = field(default_factory=list)
    preempted: list[Sequence] = field(default_factory=list)  # lost their place in the batch
    admitted: list[Sequence] = field(default_factory=list)
    grown: list[Sequence] = field(default_factory=list)  # running, with one more block
    granted: list[Sequence] = field(default_factory=list)
    completed: list[tuple[Sequence, int]] = field(default_factory=list)

    @property
    def is_empty(self) -> bool:
        return not (self.decodes or self.prefills or self.saves or self.granted or self.preempted)
