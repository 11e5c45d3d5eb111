"""This file is about which sequence holds which medium, and for how long: from its arrival until
the placeholders are computed."""

from collections.abc import Iterable

from epidote_engine.media_cache import MediaCache
from epidote_engine.sequence import Sequence


class MediaNeeds:
    """Sequences as owners in the media cache."""

    def __init__(self, cache: MediaCache) -> None:
        self._cache = cache

    def take(self, seq: Sequence) -> None:
        """Hold every medium that is not computed yet; note those that are not ready."""
        for span in seq.request.media:
            if span.end > seq.num_computed:
                self._cache.hold(span.key, _owner(seq))
                if not self._cache.is_ready(span.key):
                    seq.missing_media.add(span.key)

    def take_again(self, seq: Sequence) -> bool:
        """Whether the prompt could be computed anew; if so, its media are held again."""
        keys = {span.key for span in seq.request.media}
        if not all(self._cache.is_ready(key) for key in keys):
            return False
        for key in keys:
            self._cache.hold(key, _owner(seq))
        return True

    def give_back(self, seq: Sequence, *, num_computed: int = 0, all_of_it: bool = False) -> None:
        """Let go of media whose placeholders are among `num_computed` tokens, or of all."""
        if not seq.request.media:
            return
        last = {span.key: span.end for span in seq.request.media}  # one key may stand twice
        for key, end in last.items():
            if all_of_it or end <= num_computed:
                self._cache.let_go(key, _owner(seq))
        if all_of_it:
            seq.missing_media.clear()

    def errors(self, sequences: Iterable[Sequence]) -> list[str]:
        """Holds without a sequence, and needs without a hold."""
        owners = {_owner(seq): seq for seq in sequences}
        found = []
        for key, holders in self._cache.holds().items():
            strangers = {h for h in holders if not h.startswith("peer:")} - owners.keys()
            if strangers:
                found.append(f"medium {key[:12]} is held by {sorted(strangers)}, who are gone")
        holds = self._cache.holds()
        for owner, seq in owners.items():
            for key in seq.missing_media:
                if owner not in holds.get(key, ()):
                    found.append(f"{owner} waits for medium {key[:12]} without holding it")
        return found


def _owner(seq: Sequence) -> str:
    return f"seq:{seq.request_id}/{seq.choice.index}"
