"""This file is about pictures inside the request: data URLs (RFC 2397), base64 only."""

import binascii
import re

from epidote_gateway.api_errors import ApiError, bad_field

_HEAD = re.compile(
    r"data:(?P<type>[\w.+-]+/[\w.+-]+)?(?P<params>(?:;[\w-]+=[^;,]*)*);base64\Z", re.I
)
_TYPES = ("image/", "application/octet-stream")


def is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def data_url_bytes(url: str, *, field: str, max_bytes: int) -> bytes:
    """The bytes of `data:image/...;base64,...`; what they are is for the decoder to find out.

    Raises:
        ApiError: 400 naming `field`: no base64 data URL of an image, not strict base64, too large.
    """
    head, comma, payload = url.partition(",")
    match = _HEAD.match(head) if len(head) < 256 else None
    if not comma or match is None:
        raise bad_field(field, "must be data:image/<type>;base64,<data>", code="invalid_image_url")
    if not (match["type"] or _TYPES[1]).lower().startswith(_TYPES):
        raise bad_field(
            field, f"must be an image, got {match['type']}", code="unsupported_image_type"
        )
    if len(payload) // 4 * 3 > max_bytes + 2:
        raise too_large(field, max_bytes)
    try:
        data = binascii.a2b_base64(payload.encode("ascii"), strict_mode=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise bad_field(field, f"not valid base64: {error}", code="invalid_base64") from error
    if len(data) > max_bytes:
        raise too_large(field, max_bytes)
    return data


def too_large(field: str, max_bytes: int) -> ApiError:
    return bad_field(field, f"the file must be at most {max_bytes} bytes", code="image_too_large")
