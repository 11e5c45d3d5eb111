"""This file is about turning body bytes into request values, or into an error naming the field."""

import re
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from epidote_core.nesting import MAX_DEPTH, too_deep
from epidote_gateway.api_errors import ApiError, bad_field

Request = TypeVar("Request")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`$")
_UNKNOWN = re.compile(r"Object contains unknown field `([^`]+)`$")


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def parse(body: bytes, type_: type[Request]) -> Request:
    """Decode JSON strictly: no coercion of types, unknown fields are skipped.

    Raises:
        ApiError: 400 `invalid_json`, or 400 with the dotted path of the field, such as
            `messages[0].content[1].image_url.url`; also for values nested too deeply.
    """
    try:
        request = cast(Request, _decoder(cast(Any, type_)).decode(body))
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is no valid JSON: {error}", code="invalid_json") from error
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH:
        _check_depth(request, "")
    return request


def _check_depth(value: Any, path: str) -> None:
    """Types bound how deep structs go; what they leave open is looked at here."""
    match value:
        case msgspec.Struct():
            for name in value.__struct_fields__:
                _check_depth(getattr(value, name), f"{path}.{name}" if path else name)
        case [msgspec.Struct(), *_]:
            for number, item in enumerate(value):
                _check_depth(item, f"{path}[{number}]")
        case list() | dict() if too_deep(value):
            raise bad_field(path, f"must be nested at most {MAX_DEPTH} deep")


def _field_error(text: str) -> ApiError:
    place = _PLACE.search(text)
    path = place.group(1) if place else ""
    reason = text[: place.start()] if place else text
    missing = _MISSING.match(reason)
    is_type = reason.startswith("Expected `") and ", got `" in reason  # else a bound: "`int` >= 1"
    code = "invalid_type" if is_type else "invalid_value"
    if missing:
        name = missing.group(1)
        path, code = (f"{path}.{name}" if path else name), "missing_required_parameter"
        reason = "this field is required"
    unknown = _UNKNOWN.match(reason)
    if unknown:
        name = unknown.group(1)
        path, code, reason = (
            f"{path}.{name}" if path else name,
            "unknown_parameter",
            "no such field",
        )
    message = f"{path}: {reason}" if path else reason
    return ApiError(400, message, code=code, param=path or None)
