"""This file is about a client's messages becoming what chat templates expect."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaKind
from epidote_core.nesting import MAX_DEPTH, too_deep

# How a medium's part may be typed; its content was fetched and decoded before it came here.
_MEDIA_PARTS = {
    "image": MediaKind.IMAGE,
    "image_url": MediaKind.IMAGE,
    "input_image": MediaKind.IMAGE,
    "video": MediaKind.VIDEO,
    "video_url": MediaKind.VIDEO,
}
_TEXT_PARTS = ("text", "input_text")


def template_messages(
    messages: Sequence[Mapping[str, Any]], *, takes_media: bool
) -> tuple[list[dict[str, Any]], list[MediaKind]]:
    """(messages as templates read them, kinds of the media parts in order).

    Media parts become {"type": "image"} or {"type": "video"}, whatever they carried. A model
    without vision gets lists of text parts as one string, joined by newlines, since its template
    knows only strings. Absent content becomes "", tool-call arguments become objects.

    Raises:
        InvalidRequest: a part of an unknown type, media for a model that takes none, arguments
            that are no JSON, or anything nested too deeply.
    """
    kinds: list[MediaKind] = []
    rendered: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        at = f"messages[{i}]"
        if not isinstance(message.get("role"), str):
            raise InvalidRequest(f"{at}.role: wanted a string", f"{at}.role")
        copy = {key: value for key, value in message.items() if value is not None}
        for key, value in copy.items():
            _check_depth(value, f"{at}.{key}")
        content = message.get("content")
        if content is None or isinstance(content, str):
            copy["content"] = content or ""
        elif isinstance(content, Sequence):
            parts = [
                _part(part, f"{at}.content[{j}]", kinds, takes_media)
                for j, part in enumerate(content)
            ]
            copy["content"] = parts if takes_media else "\n".join(p["text"] for p in parts)
        else:
            raise InvalidRequest(f"{at}.content: wanted a string or a list", f"{at}.content")
        if copy.get("tool_calls"):
            copy["tool_calls"] = [
                _tool_call(call, f"{at}.tool_calls[{j}]")
                for j, call in enumerate(copy["tool_calls"])
            ]
        rendered.append(copy)
    return rendered, kinds


def _part(part: Any, at: str, kinds: list[MediaKind], takes_media: bool) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind in _TEXT_PARTS:
        if not isinstance(part.get("text"), str):
            raise InvalidRequest(f"{at}.text: wanted a string", f"{at}.text")
        return {"type": "text", "text": part["text"]}
    if kind not in _MEDIA_PARTS:
        raise InvalidRequest(
            f"{at}.type: must be one of text, image_url, image, video, got {kind!r}", f"{at}.type"
        )
    if not takes_media:
        raise InvalidRequest(f"{at}: this model takes no images or videos", at)
    kinds.append(_MEDIA_PARTS[kind])
    return {"type": _MEDIA_PARTS[kind].value}


def _tool_call(call: Any, at: str) -> Any:
    """OpenAI sends arguments as a JSON string, templates print them as an object."""
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        return call
    arguments = call["function"].get("arguments")
    if not isinstance(arguments, str):
        return call
    field = f"{at}.function.arguments"
    try:
        parsed = json.loads(arguments or "{}")
    except RecursionError as error:
        raise _nested_too_deeply(field) from error
    except ValueError as error:
        raise InvalidRequest(f"{field}: is no JSON: {error}", field) from error
    _check_depth(parsed, field)
    return {**call, "function": {**call["function"], "arguments": parsed}}


def _check_depth(value: Any, field: str) -> None:
    if too_deep(value):
        raise _nested_too_deeply(field)


def _nested_too_deeply(field: str) -> InvalidRequest:
    return InvalidRequest(f"{field}: must be nested at most {MAX_DEPTH} deep", field)
