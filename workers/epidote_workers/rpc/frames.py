"""This file is about bytes on the wire: frames, their limits, and typed bodies.

A frame is a 9-byte header (body length, kind, stream number; little-endian) and a msgpack body.

    OPEN    client → server   [method, credit, arguments]: starts a stream
    ITEM    server → client   one item; costs one credit
    LAST    server → client   one item, and the end of the stream
    END     server → client   the stream ended as it should
    ERROR   server → client   the stream ended with an error
    CANCEL  client → server   the client lost interest; the server forgets the stream
    CREDIT  client → server   so many more items may be sent
    PING / PONG               both ways, stream 0: is anybody there?
    HELLO                     client → server, first frame where a secret is asked for
"""

from collections.abc import Callable, Iterator
from enum import IntEnum
from struct import Struct as Packing
from typing import Any, Generic, TypeVar

import msgspec

from epidote_core.errors import EpidoteError

HEADER = Packing("<IBI")
MAX_BODY_BYTES = 256 * 2**20  # a video of 64 frames of 1 megapixel is 200 MB

Args = TypeVar("Args")
Item = TypeVar("Item")


class ProtocolError(EpidoteError):
    """The peer sent what no peer of ours sends; its connection is closed."""


class Kind(IntEnum):
    OPEN = 1
    ITEM = 2
    LAST = 3
    END = 4
    ERROR = 5
    CANCEL = 6
    CREDIT = 7
    PING = 8
    PONG = 9
    HELLO = 10


_KINDS = {int(kind): kind for kind in Kind}


class Method(Generic[Args, Item]):
    """One remote call: its name and its types, known to both sides.

    Dataclasses of `epidote_core` are types as they are; no class of ours is ever unpickled.
    """

    def __init__(self, name: str, args: type[Args], item: Any) -> None:
        """`item` is the type of one item (`Any`, since `list[X]` is no class)."""
        self.name = name
        self.decode_args: Callable[[bytes], Args] = msgspec.msgpack.Decoder(args).decode
        self.decode_item: Callable[[bytes], Item] = msgspec.msgpack.Decoder(item).decode


class Opening(msgspec.Struct, array_like=True, gc=False):
    """Body of OPEN, as received: the arguments stay encoded until the method is known."""

    method: str
    credit: int
    args: msgspec.Raw


_encoder = msgspec.msgpack.Encoder()
decode_opening = msgspec.msgpack.Decoder(Opening).decode


class FrameWriter:
    """Frames collected until somebody takes them all at once. Not thread-safe."""

    def __init__(self) -> None:
        self._out = bytearray()

    def __len__(self) -> int:
        return len(self._out)

    def add(self, kind: Kind, stream: int, body: Any) -> None:
        """Append one frame.

        Raises:
            ProtocolError: the body is larger than any peer accepts; nothing was appended.
        """
        out = self._out
        start = len(out)
        body_at = start + HEADER.size
        out += b"\0" * HEADER.size
        try:
            _encoder.encode_into(body, out, body_at)
            if len(out) - body_at > MAX_BODY_BYTES:
                size = len(out) - body_at
                raise ProtocolError(f"frame of {size} bytes, at most {MAX_BODY_BYTES} allowed")
        except BaseException:
            del out[start:]
            raise
        HEADER.pack_into(out, start, len(out) - body_at, kind, stream)

    def take(self) -> bytearray:
        """Everything collected so far; the caller owns it."""
        out, self._out = self._out, bytearray()
        return out


class FrameReader:
    """Bytes in, frames out. `max_body_bytes` may change between frames."""

    def __init__(self, max_body_bytes: int = MAX_BODY_BYTES) -> None:
        self.max_body_bytes = max_body_bytes
        self._held = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[Kind, int, bytes]]:
        """(kind, stream, body) of every frame that is complete now; read it to its end.

        Raises:
            ProtocolError: an unknown kind or a body above the limit, before it is buffered.
        """
        if self._held:
            self._held += data
            if len(self._held) < self._needed():
                return
            data = bytes(self._held)
            self._held = bytearray()
        at, size = 0, len(data)
        while size - at >= HEADER.size:
            length, kind, stream = HEADER.unpack_from(data, at)
            known = self._check(length, kind)
            end = at + HEADER.size + length
            if end > size:
                break
            yield known, stream, data[at + HEADER.size : end]
            at = end
        if at < size:
            self._held += data[at:]

    def _needed(self) -> int:
        if len(self._held) < HEADER.size:
            return HEADER.size
        length, kind, _ = HEADER.unpack_from(self._held)
        self._check(length, kind)
        return HEADER.size + int(length)

    def _check(self, length: int, kind: int) -> Kind:
        known = _KINDS.get(kind)
        if known is None:
            raise ProtocolError(f"frame of unknown kind {kind}")
        if length > self.max_body_bytes:
            raise ProtocolError(f"frame of {length} bytes, at most {self.max_body_bytes} allowed")
        return known
