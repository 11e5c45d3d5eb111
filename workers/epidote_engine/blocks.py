"""This file is about who holds which KV block, and which blocks can be found by content.

A block is held (reference count > 0), free with a name (its content may be reused until it is
evicted, least recently released first), or blank. Only full, computed blocks get names.
Source: automatic prefix caching of vLLM (Kwon et al., SOSP 2023).
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence

from epidote_core.block_hash import BlockHash
from epidote_core.errors import OutOfBlocks


class BlockPool:
    """Reference counts and names of `num_blocks` blocks; knows nothing of tensors."""

    def __init__(self, num_blocks: int) -> None:
        self.num_blocks = num_blocks
        self._refs = [0] * num_blocks
        self._names: list[BlockHash | None] = [None] * num_blocks
        self._by_name: dict[BlockHash, int] = {}
        self._blank = list(range(num_blocks - 1, -1, -1))  # popped from the end: 0 first
        self._evictable: OrderedDict[int, None] = OrderedDict()  # free but named, oldest first
        self._added: set[BlockHash] = set()
        self._removed: set[BlockHash] = set()

    @property
    def num_free(self) -> int:
        """Blocks that `allocate` could hand out now."""
        return len(self._blank) + len(self._evictable)

    def allocate(self, count: int) -> list[int]:
        """Take `count` blocks, evicting names where no blank block is left.

        Raises:
            OutOfBlocks: fewer are free; nothing was changed.
        """
        if count > self.num_free:
            raise OutOfBlocks(f"wanted {count} blocks, {self.num_free} are free")
        taken = []
        for _ in range(count):
            if self._blank:
                block = self._blank.pop()
            else:
                block, _none = self._evictable.popitem(last=False)
                self._forget(block)
            self._refs[block] = 1
            taken.append(block)
        return taken

    def share(self, blocks: Iterable[int]) -> None:
        """One more holder for each of `blocks`, which are held or free with a name."""
        for block in blocks:
            if self._refs[block] == 0:
                del self._evictable[block]
            self._refs[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One holder less. A sequence's last blocks become the first to be evicted."""
        for block in reversed(blocks):
            self._refs[block] -= 1
            assert self._refs[block] >= 0, f"block {block} released more often than held"
            if self._refs[block] == 0:
                if self._names[block] is None:
                    self._blank.append(block)
                else:
                    self._evictable[block] = None

    def name(self, block: int, content: BlockHash) -> None:
        """Let later sequences find `block`; of two blocks with one content the first is found."""
        if content not in self._by_name and self._names[block] is None:
            self._by_name[content] = block
            self._names[block] = content
            self._note(content, self._added, self._removed)

    def longest_prefix(self, contents: Iterable[BlockHash]) -> list[int]:
        """Blocks of the longest known prefix of `contents`. Changes nothing: `share` them."""
        found = []
        for content in contents:
            block = self._by_name.get(content)
            if block is None:
                break
            found.append(block)
        return found

    def is_private(self, block: int) -> bool:
        """One holder and no name: its holder may write to it."""
        return self._refs[block] == 1 and self._names[block] is None

    def take_changes(self) -> tuple[frozenset[BlockHash], frozenset[BlockHash]]:
        """Names (added, removed) since the last call."""
        changes = frozenset(self._added), frozenset(self._removed)
        self._added, self._removed = set(), set()
        return changes

    def errors(self, holders: Iterable[Sequence[int]]) -> list[str]:
        """Every disagreement between the counts and `holders`, the block lists of all who hold."""
        found = []
        held = Counter(block for blocks in holders for block in blocks)
        for block, refs in enumerate(self._refs):
            if refs != held[block]:
                found.append(f"block {block}: {refs} references, {held[block]} holders")
        free = set(self._blank) | set(self._evictable)
        if len(free) != self.num_free or free != {b for b, r in enumerate(self._refs) if r == 0}:
            found.append("free lists do not hold exactly the unreferenced blocks")
        if any(self._names[b] is not None for b in self._blank):
            found.append("a blank block has a name")
        if any(self._names[b] is None for b in self._evictable):
            found.append("an evictable block has no name")
        named = {name: b for b, name in enumerate(self._names) if name is not None}
        if named != self._by_name:
            found.append("names and blocks disagree")
        return found

    def _forget(self, block: int) -> None:
        name = self._names[block]
        assert name is not None, "only named blocks are forgotten"
        self._names[block] = None
        del self._by_name[name]
        self._note(name, self._removed, self._added)

    @staticmethod
    def _note(name: BlockHash, into: set[BlockHash], opposite: set[BlockHash]) -> None:
        if name in opposite:
            opposite.remove(name)
        else:
            into.add(name)
