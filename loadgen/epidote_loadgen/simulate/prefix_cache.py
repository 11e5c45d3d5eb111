"""This file is about one worker's prefix cache, by the trace's block ids."""

from collections import OrderedDict

from epidote_loadgen.simulate.sim_request import SimRequest


class PrefixCache:
    """Least recently used blocks go first. A block hits only if all blocks before it do."""

    __slots__ = ("_block_tokens", "_blocks", "_capacity", "hits", "queries")

    def __init__(self, *, capacity_blocks: int, block_tokens: int) -> None:
        self._blocks: OrderedDict[int, None] = OrderedDict()
        self._capacity = capacity_blocks
        self._block_tokens = block_tokens
        self.hits = 0
        self.queries = 0

    def hit_tokens(self, request: SimRequest) -> int:
        """Tokens of the prompt that need no prefill; the last token always does."""
        if not request.block_ids:
            return 0
        hit = 0
        for block in request.block_ids:
            if block not in self._blocks:
                break
            hit += 1
        return min(hit * self._block_tokens, request.prompt_tokens - 1)

    def insert(self, request: SimRequest) -> None:
        """Remember the prompt's blocks, the first ones as the most recent."""
        if not request.block_ids:
            return
        self.queries += request.prompt_tokens
        self.hits += request.cached_tokens
        for block in reversed(request.block_ids):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
