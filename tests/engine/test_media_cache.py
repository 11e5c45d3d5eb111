"""The encoder cache's bookkeeping: rows, holders, eviction."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from epidote_engine.media_cache import MediaCache


def filled(cache: MediaCache, *keys: str, size: int) -> None:
    for key in keys:
        assert cache.reserve(key, size) is not None
        cache.commit(key)


def test_the_least_recently_used_goes_first():
    cache = MediaCache(6)
    filled(cache, "a", "b", "c", size=2)
    cache.rows("a")
    assert cache.reserve("d", 2) is not None
    assert [cache.is_known(key) for key in "abcd"] == [True, False, True, True]


def test_what_is_held_or_being_filled_stays():
    cache = MediaCache(6)
    filled(cache, "a", size=2)
    cache.hold("a", "request")
    cache.reserve("b", 2)
    assert cache.num_free == 2
    assert cache.reserve("c", 3) is None
    assert cache.errors() == []


def test_a_key_can_be_held_before_it_arrives():
    cache = MediaCache(2)
    cache.hold("a", "request")
    filled(cache, "a", size=2)
    assert cache.reserve("b", 1) is None
    cache.let_go("a", "request")
    assert cache.reserve("b", 1) is not None


def test_scattered_rows_serve_a_large_medium():
    cache = MediaCache(6)
    filled(cache, *"abc", size=2)
    cache.hold("b", "request")
    rows = cache.reserve("d", 4)
    assert rows is not None
    assert sorted(r for part in rows.rows for r in part) == [0, 1, 4, 5]


def test_a_cancelled_medium_leaves_its_rows():
    cache = MediaCache(4)
    cache.reserve("a", 4)
    cache.cancel("a")
    assert cache.num_free == 4
    assert cache.take_changes() == (frozenset(), frozenset())


class AnyUse(RuleBasedStateMachine):
    keys = st.sampled_from("abcdef")
    owners = st.sampled_from("xyz")

    def __init__(self) -> None:
        super().__init__()
        self.cache = MediaCache(11)
        self.known: set[str] = set()

    @rule(key=keys, size=st.integers(0, 12))
    def reserve(self, key, size):
        if not self.cache.is_known(key):
            free = self.cache.num_free
            rows = self.cache.reserve(key, size)
            assert (rows is None) == (size > free)

    @rule(key=keys, fails=st.booleans())
    def fill(self, key, fails):
        if self.cache.is_known(key) and not self.cache.is_ready(key):
            (self.cache.cancel if fails else self.cache.commit)(key)

    @rule(key=keys, owner=owners)
    def hold(self, key, owner):
        self.cache.hold(key, owner)

    @rule(key=keys, owner=owners)
    def let_go(self, key, owner):
        self.cache.let_go(key, owner)

    @rule()
    def take_changes(self):
        added, removed = self.cache.take_changes()
        self.known = (self.known - removed) | added
        assert self.known == {key for key in "abcdef" if self.cache.is_ready(key)}

    @invariant()
    def every_row_is_accounted_for(self):
        assert self.cache.errors() == []


TestAnyUse = AnyUse.TestCase
