"""Block accounting: who holds what, what is found by name, and what is evicted first."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from epidote_core.block_hash import chain
from epidote_core.errors import OutOfBlocks
from epidote_engine.blocks import BlockPool

NAMES = list(chain(range(12), 1))


def test_blank_blocks_go_before_names_are_evicted():
    pool = BlockPool(3)
    first = pool.allocate(2)
    pool.name(first[0], NAMES[0])
    pool.release(first)
    assert pool.longest_prefix(NAMES) == [first[0]]
    pool.allocate(2)
    assert pool.longest_prefix(NAMES) == [first[0]]
    pool.allocate(1)
    assert pool.longest_prefix(NAMES) == []


def test_the_end_of_a_sequence_is_evicted_before_its_beginning():
    pool = BlockPool(4)
    blocks = pool.allocate(4)
    for block, name in zip(blocks, NAMES, strict=False):
        pool.name(block, name)
    pool.release(blocks)
    pool.allocate(2)
    assert pool.longest_prefix(NAMES) == blocks[:2]


def test_the_first_of_two_equal_blocks_is_found_and_the_other_stays_blank():
    pool = BlockPool(2)
    first, second = pool.allocate(2)
    pool.name(first, NAMES[0])
    pool.name(second, NAMES[0])
    assert pool.longest_prefix(NAMES[:1]) == [first]
    assert pool.is_private(second)
    assert not pool.is_private(first)


def test_too_many_blocks_change_nothing():
    pool = BlockPool(2)
    with pytest.raises(OutOfBlocks):
        pool.allocate(3)
    assert pool.num_free == 2
    assert pool.errors([]) == []


def test_changes_that_cancel_out_are_not_told():
    pool = BlockPool(1)
    (block,) = pool.allocate(1)
    pool.name(block, NAMES[0])
    pool.release([block])
    assert pool.take_changes() == ({NAMES[0]}, frozenset())
    (block,) = pool.allocate(1)  # evicts
    pool.name(block, NAMES[0])  # and is there again
    assert pool.take_changes() == (frozenset(), frozenset())
    pool.release([block])
    taken = pool.allocate(1)  # evicts again
    assert pool.take_changes() == (frozenset(), {NAMES[0]})
    assert pool.errors([taken]) == []


class AnyUse(RuleBasedStateMachine):
    """Sequences come, find prefixes, name blocks and go, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.pool = BlockPool(7)
        self.holders: list[list[int]] = []
        self.known: set[bytes] = set()

    @rule(count=st.integers(0, 4))
    def allocate(self, count):
        if count <= self.pool.num_free:
            self.holders.append(self.pool.allocate(count))

    @rule(length=st.integers(1, len(NAMES)))
    def share_prefix(self, length):
        found = self.pool.longest_prefix(NAMES[:length])
        self.pool.share(found)
        self.holders.append(found)

    @precondition(lambda self: self.holders)
    @rule(data=st.data())
    def release(self, data):
        at = data.draw(st.integers(0, len(self.holders) - 1))
        self.pool.release(self.holders.pop(at))

    @precondition(lambda self: any(self.holders))
    @rule(data=st.data(), name=st.sampled_from(NAMES))
    def name(self, data, name):
        blocks = data.draw(st.sampled_from([h for h in self.holders if h]))
        self.pool.name(data.draw(st.sampled_from(blocks)), name)

    @rule()
    def take_changes(self):
        added, removed = self.pool.take_changes()
        assert removed <= self.known
        assert not added & self.known
        self.known = (self.known - removed) | added
        for name in NAMES:
            assert (name in self.known) == bool(self.pool.longest_prefix([name]))

    @invariant()
    def every_block_is_accounted_for(self):
        assert self.pool.errors(self.holders) == []


TestAnyUse = AnyUse.TestCase
