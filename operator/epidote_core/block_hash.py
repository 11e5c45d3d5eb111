"""This file is about naming KV blocks by content, so that engine and router agree on prefixes.

A block's name is a hash of its parent's name, its token ids, and the media that lie in it: equal
names mean equal KV content (up to the hash's collisions: 128 bits).
Source: the hash chain of vLLM's automatic prefix caching (Kwon et al., SOSP 2023).
"""

from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from epidote_core.generation import MediaSpan

BlockHash = bytes  # 16 bytes


def root_hash(salt: str) -> BlockHash:
    """The parent of a sequence's first block; prompts share blocks only under one salt."""
    return blake2b(salt.encode(), digest_size=16, person=b"epidote-kv").digest()


def block_hash(
    parent: BlockHash, token_ids: Sequence[int], media: Sequence[tuple[str, int]] = ()
) -> BlockHash:
    """The name of a full block after `parent`.

    `media` lists (key, position within the medium) for each run of placeholders touching the block:
    the key alone would not tell the first block of an image from its second.
    """
    digest = blake2b(parent, digest_size=16)
    digest.update(array("q", token_ids).tobytes())
    for key, position in media:
        digest.update(f"|{key}:{position}".encode())
    return digest.digest()


def media_in_block(media: Sequence[MediaSpan], start: int, end: int) -> tuple[tuple[str, int], ...]:
    """(key, first position within the medium) for every run of placeholders in [start, end)."""
    found: list[tuple[str, int]] = []
    for span in media:
        before = 0
        for offset, count in span.token_runs:
            if offset < end and offset + count > start:
                found.append((span.key, before + max(0, start - offset)))
            before += count
    return tuple(found)


def chain(
    token_ids: Sequence[int], block_size: int, *, media: Sequence[MediaSpan] = (), salt: str = ""
) -> Iterator[BlockHash]:
    """Names of all full blocks of a sequence, in order; a last, partial block has no name.

    >>> a = list(chain([1, 2, 3, 4, 5], 2)); b = list(chain([1, 2, 3, 9], 2))
    >>> len(a), a[0] == b[0], a[1] == b[1]
    (2, True, False)
    """
    parent = root_hash(salt)
    for start in range(0, len(token_ids) - block_size + 1, block_size):
        end = start + block_size
        parent = block_hash(parent, token_ids[start:end], media_in_block(media, start, end))
        yield parent
