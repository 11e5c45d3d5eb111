"""This file is about bringing pictures and videos to a model's grid of patches; no torch.

Source: the image processor of Qwen2-VL (transformers' Qwen2VLImageProcessor, its PIL backend) and
the video processor of Qwen3-VL; pictures come out byte for byte as theirs.
"""

from math import ceil, floor, sqrt

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from epidote_core.errors import InvalidRequest
from epidote_engine.image_settings import ImageSettings

MAX_ASPECT_RATIO = 200
ORIENTATION = 0x0112  # the EXIF tag


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as a viewer shows it: turned as EXIF says, transparency on white, RGB."""
    image = ImageOps.exif_transpose(image)
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        translucent = image.convert("RGBA")
        white = Image.new("RGBA", translucent.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, translucent).convert("RGB")
    return image.convert("RGB")


def resize_image(image: Image.Image, settings: ImageSettings) -> Image.Image:
    """`image` (RGB) at the model's size.

    Raises:
        InvalidRequest: no pixels, or longer than 200 times its width.
    """
    height, width = image_size(image.height, image.width, settings)
    return image.resize((width, height), resample=Image.Resampling(settings.resample))


def image_size(height: int, width: int, settings: ImageSettings) -> tuple[int, int]:
    """(height, width) after resizing: multiples of the grid, near the aspect ratio, within limits.

    Raises:
        InvalidRequest: no pixels, or longer than 200 times its width.
    """
    return fit(
        height,
        width,
        factor=settings.factor,
        min_pixels=settings.min_pixels,
        max_pixels=settings.max_pixels,
    )


def video_size(
    num_frames: int, height: int, width: int, settings: ImageSettings
) -> tuple[int, int]:
    """(height, width) of every frame after resizing.

    Raises:
        InvalidRequest: no pixels, or longer than 200 times its width.
    """
    factor, frames, counted = settings.factor, 1, 1
    if settings.video_limits_total:
        frames = max(num_frames, settings.temporal_patch)
        counted = round(frames / settings.temporal_patch) * settings.temporal_patch
        if 0 < min(height, width) < factor:
            scale = max(factor / height, factor / width)
            height, width = int(height * scale), int(width * scale)
    return fit(
        height,
        width,
        factor=factor,
        min_pixels=settings.video_min_pixels,
        max_pixels=settings.video_max_pixels,
        frames=frames,
        counted_frames=counted,
    )


def fit(
    height: int,
    width: int,
    *,
    factor: int,
    min_pixels: int,
    max_pixels: int,
    frames: int = 1,
    counted_frames: int = 1,
) -> tuple[int, int]:
    """Round to multiples of `factor`; scale if all frames together leave the limits.

    `counted_frames` (frames rounded to whole patches) decides whether a limit is passed, `frames`
    by how much to scale: the reference's own two numbers.

    >>> fit(100, 150, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 1280)
    (112, 140)
    >>> fit(2000, 1000, factor=28, min_pixels=56 * 56, max_pixels=28 * 28 * 4)
    (56, 28)
    """
    if height < 1 or width < 1:
        raise InvalidRequest(f"image: has no pixels ({width} x {height})")
    if max(height, width) / min(height, width) > MAX_ASPECT_RATIO:
        raise InvalidRequest(
            f"image: aspect ratio must be at most {MAX_ASPECT_RATIO}, got {width} x {height}"
        )
    new_height, new_width = round(height / factor) * factor, round(width / factor) * factor
    if counted_frames * new_height * new_width > max_pixels:
        shrink = sqrt(frames * height * width / max_pixels)
        new_height = max(factor, floor(height / shrink / factor) * factor)
        new_width = max(factor, floor(width / shrink / factor) * factor)
    elif counted_frames * new_height * new_width < min_pixels:
        grow = sqrt(min_pixels / (frames * height * width))
        new_height = ceil(height * grow / factor) * factor
        new_width = ceil(width * grow / factor) * factor
    return new_height, new_width


def resize_frames(frames: NDArray[np.uint8], settings: ImageSettings) -> NDArray[np.uint8]:
    """`frames` [frames, height, width, 3] at the model's size, each resized as a picture.

    Raises:
        InvalidRequest: not uint8 RGB frames, no pixels, or longer than 200 times its width.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or not len(frames):
        raise InvalidRequest(
            f"video: wanted uint8 [frames, height, width, 3], got {frames.dtype} "
            f"{list(frames.shape)}"
        )
    num_frames, height, width, _ = frames.shape
    height, width = video_size(num_frames, height, width, settings)
    resample = Image.Resampling(settings.resample)
    return np.stack(
        [np.asarray(Image.fromarray(f).resize((width, height), resample)) for f in frames]
    )
