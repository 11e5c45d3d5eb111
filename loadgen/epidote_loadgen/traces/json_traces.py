"""This file is about traces in JSON lines: Mooncake's with prefix identity, and our own.

kvcache-ai/Mooncake: timestamp (ms), input_length, output_length, hash_ids of 512-token blocks.
Own rows: at_s, prompt_tokens or messages, output_tokens, and any other field of `TraceRow`.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

from epidote_loadgen.bounds import MOST_IMAGE_TOKENS, MOST_IMAGES, MOST_TOKENS
from epidote_loadgen.traces.bad_rows import BadRow, TraceError, name, seconds, whole
from epidote_loadgen.traces.trace_row import TraceRow

MOONCAKE_BLOCK_TOKENS = 512
ParseLine = Callable[[str], TraceRow]
OWN_FIELDS = frozenset(TraceRow.__dataclass_fields__) | {"prompt_tokens", "images"}


def parser_for(first_line: str, *, want: str | None = None) -> ParseLine:
    """The parser of the format that this row belongs to; `want` insists on one.

    Raises:
        TraceError: it is neither format.
    """
    try:
        row = _object(first_line)
    except BadRow as problem:
        raise TraceError(f"line 1: {problem}") from problem
    for known, key, parse in (("mooncake", "timestamp", mooncake), ("own", "at_s", own)):
        if want in (None, known) and key in row:
            return parse
    wanted = {"mooncake": "timestamp", "own": "at_s"}.get(want or "", "timestamp or at_s")
    raise TraceError(f"line 1: want a row with {wanted}, found {', '.join(row)[:120]!r}")


def mooncake(line: str) -> TraceRow:
    row = _object(line)
    return TraceRow(
        at_s=seconds(row.get("timestamp"), "timestamp", per_s=1000.0),
        text_tokens=whole(row.get("input_length"), "input_length"),
        output_tokens=whole(row.get("output_length"), "output_length"),
        block_ids=_wholes(row.get("hash_ids", []), "hash_ids"),
        block_tokens=MOONCAKE_BLOCK_TOKENS,
    )


def own(line: str) -> TraceRow:
    row = _object(line)
    unknown = sorted(set(row) - OWN_FIELDS)
    if unknown:
        raise BadRow(unknown[0], "a known field", row[unknown[0]])
    images = _wholes(row.get("image_tokens", []), "image_tokens", most=MOST_IMAGE_TOKENS)
    if len(images) > MOST_IMAGES:
        raise BadRow("image_tokens", f"at most {MOST_IMAGES} images", len(images))
    if "images" in row and not images:
        images = (0,) * whole(row["images"], "images", most=MOST_IMAGES)
    prompt = row.get("text_tokens")
    if prompt is None:
        total = whole(row.get("prompt_tokens", 0), "prompt_tokens")
        prompt = total - sum(images)
        if prompt < 0:
            raise BadRow("prompt_tokens", f">= the images' {sum(images)}", total)
    block_ids = _wholes(row.get("block_ids", []), "block_ids")
    block_tokens = whole(row.get("block_tokens", MOONCAKE_BLOCK_TOKENS), "block_tokens", least=1)
    if len(block_ids) * block_tokens > MOST_TOKENS:
        found = f"{len(block_ids)} of {block_tokens}"
        raise BadRow("block_ids", f"blocks of at most {MOST_TOKENS} tokens in all", found)
    messages = row.get("messages", [])
    if not isinstance(messages, list) or not all(isinstance(entry, dict) for entry in messages):
        raise BadRow("messages", "a list of objects", messages)
    return TraceRow(
        at_s=seconds(row.get("at_s"), "at_s"),
        text_tokens=whole(prompt, "text_tokens"),
        output_tokens=whole(row.get("output_tokens"), "output_tokens"),
        image_tokens=images,
        image_ids=_texts(row.get("image_ids", []), "image_ids"),
        block_ids=block_ids,
        block_tokens=block_tokens,
        tenant=name(row.get("tenant", ""), "tenant"),
        category=name(row.get("category", ""), "category"),
        session_id=name(row.get("session_id", ""), "session_id"),
        turn=whole(row.get("turn", 0), "turn"),
        messages=tuple(messages),
    )


def _object(line: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
        if "\\ud" in line.lower():  # half a character, escaped: it could never be sent
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        found = error.object[error.start : error.end]
        raise BadRow("row", "whole characters", found) from None
    except (ValueError, RecursionError):
        raise BadRow("row", "a JSON object", line.strip()) from None
    if not isinstance(row, dict):
        raise BadRow("row", "a JSON object", line.strip())
    return row


def _wholes(value: object, column: str, *, most: int = 2**64) -> tuple[int, ...]:
    if not isinstance(value, list):
        raise BadRow(column, "a list of whole numbers", value)
    return tuple(whole(entry, column, most=most) for entry in value)


def _texts(value: object, column: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise BadRow(column, "a list of strings", value)
    return tuple(name(entry, column) for entry in value)
