"""This file is about a store that does not answer: the cache then misses, and says so."""

from epidote_core.errors import EpidoteError


class StoreUnavailable(EpidoteError):
    """The document store can't be used now; the message says which and why."""
