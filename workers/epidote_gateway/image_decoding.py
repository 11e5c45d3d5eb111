"""This file is about files of strangers becoming RGB pixels, or errors: never more than asked for.

The type is what the bytes are, not what a header says. The size is checked before any pixel is
decoded, so that a decompression bomb costs its header only.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO

from PIL import Image, ImageOps, UnidentifiedImageError

from epidote_gateway.api_errors import ApiError, bad_field

# Pixels lie in blocks of this size. Beyond 32 MiB glibc maps each by itself and gives it back when
# it is freed; Pillow's 16 MiB stay with every thread that ever decoded something large.
BLOCK_BYTES = 64 << 20
Image.core.set_block_size(BLOCK_BYTES)  # type: ignore[attr-defined]

BAND_ROWS = 256
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


@dataclass(frozen=True, kw_only=True)
class ImageLimits:
    max_pixels: int
    max_side_px: int


def decode_image(
    data: bytes,
    *,
    field: str,
    limits: ImageLimits,
    before_pixels: Callable[[int], None] = lambda num_pixels: None,
) -> Image.Image:
    """Upright RGB, as `transformers.image_utils.load_image` gives it (alpha is dropped).

    `before_pixels` hears how many there are and may wait before they are decoded.

    Raises:
        ApiError: 400 naming `field`: empty, unknown type, truncated, too large, animated.
    """
    if not data:
        raise bad_field(field, "the image is empty (0 bytes)", code="invalid_image")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # our limits are stricter than PIL's warning
            image = Image.open(BytesIO(data), formats=FORMATS)
            _check_size(image.size, field, limits)
            if getattr(image, "is_animated", False):
                raise bad_field(
                    field, "animated images are not supported", code="unsupported_image_type"
                )
            before_pixels(image.width * image.height)
            image.load()
            ImageOps.exif_transpose(image, in_place=True)  # a copy is 4 bytes a pixel
            return image if image.mode == "RGB" else image.convert("RGB")
    except ApiError:
        raise
    except UnidentifiedImageError as error:
        wanted = f"must be one of {', '.join(FORMATS)}, but the bytes are none of these"
        raise bad_field(field, wanted, code="unsupported_image_type") from error
    except Image.DecompressionBombError as error:
        raise _too_many_pixels(field, limits) from error
    except Exception as error:
        # Decoders raise whatever broken bytes lead them to (OSError, SyntaxError, struct.error,
        # IndexError, ...); each means that the client's file can't be decoded.
        raise bad_field(
            field,
            f"the image can't be decoded, it may be truncated or damaged ({type(error).__name__})",
            code="invalid_image",
        ) from error


def _check_size(size: tuple[int, int], field: str, limits: ImageLimits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise bad_field(
            field, f"the image has no pixels ({width} x {height})", code="invalid_image"
        )
    if width * height > limits.max_pixels:
        raise _too_many_pixels(field, limits, f", got {width} x {height}")
    if max(size) > limits.max_side_px:
        raise bad_field(
            field,
            f"sides must be at most {limits.max_side_px} px, got {width} x {height}",
            code="image_too_large",
        )


def _too_many_pixels(field: str, limits: ImageLimits, got: str = "") -> ApiError:
    message = f"the image must have at most {limits.max_pixels} pixels{got}"
    return bad_field(field, message, code="image_too_large")


def content_key(image: Image.Image) -> str:
    """A name for an RGB image's pixels: the same for another URL, file type or metadata.

    >>> content_key(Image.new("RGB", (2, 3))) == content_key(Image.new("RGB", (3, 2)))
    False
    """
    digest = blake2b(f"rgb {image.width}x{image.height}|".encode(), digest_size=32)
    for top in range(0, image.height, BAND_ROWS):  # never a second copy of the whole
        bottom = min(top + BAND_ROWS, image.height)
        digest.update(image.crop((0, top, image.width, bottom)).tobytes())
    return digest.hexdigest()
