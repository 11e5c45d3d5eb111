"""This file is about an engine's media: encoding them, taking in and lending their embeddings."""

from abc import ABC, abstractmethod

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaPixels
from epidote_core.roles import Role
from epidote_engine.encode_queue import EncodeQueue
from epidote_engine.events import Event, MediaFailed, MediaReady, MediaRows, RequestFailed
from epidote_engine.media_cache import MediaCache
from epidote_engine.model_parts import ModelParts
from epidote_engine.scheduler import Scheduler


class EngineMedia(ABC):
    """The half of `Engine` that knows media; `Engine` makes what it works with."""

    role: Role
    _media: MediaCache
    _encode_queue: EncodeQueue
    _parts: ModelParts
    _scheduler: Scheduler
    _outbox: list[Event]
    _may_progress: bool

    @abstractmethod
    def abort(self, request_id: str) -> None:
        """Forget a request and free what it holds."""

    def submit_media(self, pixels: MediaPixels) -> None:
        """Encode a medium here; `MediaReady` follows, at once if it is cached."""
        if self._parts.encoder is None:
            self._fail_medium(pixels.key, f"role {self.role} has no encoder")
        elif pixels.num_tokens > self._media.num_rows:
            self._fail_medium(pixels.key, "larger than the encoder cache")
        elif self._media.is_ready(pixels.key):
            self._outbox.append(MediaReady(key=pixels.key))
        elif pixels.key not in self._encode_queue:
            self._encode_queue.add(pixels)
        self._may_progress = True

    def reserve_media(self, key: str, num_tokens: int) -> MediaRows | None:
        """Rows to copy an embedding into; with `ready` set if there is nothing to copy.

        None: no room now, or the medium is just being filled; ask again later.

        Raises:
            InvalidRequest: larger than the whole pool.
        """
        if num_tokens > self._media.num_rows:
            raise InvalidRequest(f"media: {num_tokens} embeddings do not fit", "media")
        if self._media.is_known(key):
            return self._media.rows(key) if self._media.is_ready(key) else None
        return self._media.reserve(key, num_tokens)

    def commit_media(self, key: str) -> None:
        """The reserved rows are filled; `MediaReady` follows."""
        if self._media.is_known(key) and not self._media.is_ready(key):
            self._media.commit(key)
            self._note_ready(key)

    def cancel_media(self, key: str) -> None:
        """The reserved rows could not be filled: they are free again."""
        if self._media.is_known(key) and not self._media.is_ready(key):
            self._media.cancel(key)
            self._may_progress = True

    def acquire_media(self, key: str, owner: str) -> MediaRows | None:
        """Keep a ready embedding from being evicted until `release_media`; None: not ready."""
        if not self._media.is_ready(key):
            return None
        self._media.hold(key, f"peer:{owner}")
        return self._media.rows(key)

    def release_media(self, key: str, owner: str) -> None:
        """Undo `acquire_media`; without one nothing happens."""
        self._media.let_go(key, f"peer:{owner}")
        self._may_progress = True

    def _encoder_step(self) -> bool:
        """Whether there was anything to do."""
        if not len(self._encode_queue) or self._parts.encoder is None:
            return False
        events = self._encode_queue.step(self._parts.encoder.encode)
        for event in events:
            if isinstance(event, MediaReady):
                self._note_ready(event.key)
            else:
                self._fail_medium(event.key, event.message)
        return bool(events)

    def _note_ready(self, key: str) -> None:
        self._outbox.append(MediaReady(key=key))
        for seq in self._scheduler.waiting:
            seq.missing_media.discard(key)
        self._may_progress = True

    def _fail_medium(self, key: str, message: str) -> None:
        self._outbox.append(MediaFailed(key=key, message=message))
        failed = {s.request_id for s in self._scheduler.waiting if key in s.missing_media}
        for request_id in failed:
            self.abort(request_id)
            self._outbox.append(RequestFailed(request_id=request_id, message=message))
