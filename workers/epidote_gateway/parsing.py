"""This file is about turning body bytes into request values, or into an error naming the field."""

import re
from functools import cache
from typing import Any, TypeVar, cast

import msgspec

from epidote_gateway.api_errors import ApiError

Request = TypeVar("Request")
_PLACE = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`$")
_MISSING = re.compile(r"Object missing required field `([^`]+)`$")


@cache
def _decoder(type_: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(type_)


def parse(body: bytes, type_: type[Request]) -> Request:
    """Decode JSON strictly: no coercion of types, unknown fields are skipped.

    Raises:
        ApiError: 400 `invalid_json`, or 400 with the dotted path of the field, such as
            `messages[0].content[1].image_url.url`.
    """
    try:
        return cast(Request, _decoder(cast(Any, type_)).decode(body))
    except msgspec.ValidationError as error:
        raise _field_error(str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, f"the body is no valid JSON: {error}", code="invalid_json") from error


def _field_error(text: str) -> ApiError:
    place = _PLACE.search(text)
    path = place.group(1) if place else ""
    reason = text[: place.start()] if place else text
    missing = _MISSING.match(reason)
    code = "invalid_type" if reason.startswith("Expected `") else "invalid_value"
    if missing:
        name = missing.group(1)
        path, code = (f"{path}.{name}" if path else name), "missing_required_parameter"
        reason = "this field is required"
    message = f"{path}: {reason}" if path else reason
    return ApiError(400, message, code=code, param=path or None)
