"""This file is about the settings of a model's image and video processors; no torch.

Source of the defaults: transformers' Qwen2VLImageProcessor and Qwen3VLVideoProcessor.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from epidote_engine.model_files import InvalidModel, read_json
from epidote_engine.vision.spec import Normalisation

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
BICUBIC = 3  # PIL's number for it, as the files spell it


@dataclass(frozen=True, kw_only=True)
class ImageSettings:
    """How pictures are resized: to between `min_pixels` and `max_pixels` on the model's grid.

    The video limits count the pixels of all frames together where `video_limits_total`
    (Qwen3-VL), else of one frame (Qwen2.5-VL).
    """

    min_pixels: int
    max_pixels: int
    resample: int = BICUBIC
    patch: int
    temporal_patch: int
    merge: int
    normalisation: Normalisation
    video_min_pixels: int
    video_max_pixels: int
    video_limits_total: bool

    @property
    def factor(self) -> int:
        """Height and width of every resized picture are multiples of this many pixels."""
        return self.patch * self.merge

    @property
    def fingerprint(self) -> str:
        """Every setting that changes an embedding, for media keys."""
        return repr(self)


def load_image_settings(directory: Path, vision: Mapping[str, Any], tower: str) -> ImageSettings:
    """Read preprocessor_config.json (or the processor_config.json that transformers 5 writes).

    `vision` is config.json's vision_config: its grid wins where a processor file is silent. A
    missing file means the processor's defaults.

    Raises:
        InvalidModel: the files contradict each other or ask for what this engine does not do.
    """
    combined = read_json(directory, "processor_config.json")
    image = read_json(directory, "preprocessor_config.json") or _section(
        combined, "image_processor"
    )
    video = (
        read_json(directory, "video_preprocessor_config.json")
        or _section(combined, "video_processor")
        or image  # older checkpoints have one file for both
    )
    grid = {
        name: _agreeing(directory, image, vision, file_name, name, default)
        for name, file_name, default in (
            ("patch_size", "patch_size", 16 if tower == "qwen3_vl" else 14),
            ("temporal_patch_size", "temporal_patch_size", 2),
            ("spatial_merge_size", "merge_size", 2),
        )
    }
    for switch in ("do_resize", "do_rescale", "do_normalize"):
        if image.get(switch) is False:
            raise InvalidModel(f"{directory}: image processor with {switch} false is not supported")
    area = (grid["patch_size"] * grid["spatial_merge_size"]) ** 2
    low, high = _pixel_limits(image, (56 * 56, 28 * 28 * 1280))
    total = tower == "qwen3_vl"
    video_default = (128 * 32 * 32, 32 * 32 * 768) if total else (128 * 28 * 28, 28 * 28 * 768)
    video_low, video_high = _pixel_limits(video, video_default)
    if high < area:
        raise InvalidModel(f"{directory}: max_pixels {high} is less than one token ({area} pixels)")
    return ImageSettings(
        min_pixels=low,
        max_pixels=high,
        resample=int(image.get("resample", BICUBIC)),
        patch=grid["patch_size"],
        temporal_patch=grid["temporal_patch_size"],
        merge=grid["spatial_merge_size"],
        normalisation=Normalisation(
            mean=_three(image.get("image_mean", CLIP_MEAN)),
            std=_three(image.get("image_std", CLIP_STD)),
            rescale=float(image.get("rescale_factor", 1 / 255)),
        ),
        video_min_pixels=video_low,
        video_max_pixels=video_high,
        video_limits_total=total,
    )


def _section(combined: Mapping[str, Any], name: str) -> dict[str, Any]:
    section = combined.get(name)
    return section if isinstance(section, dict) else {}


def _agreeing(
    directory: Path,
    image: Mapping[str, Any],
    vision: Mapping[str, Any],
    file_name: str,
    name: str,
    default: int,
) -> int:
    found = {int(s[key]) for s, key in ((image, file_name), (vision, name)) if s.get(key)}
    if len(found) > 1:
        raise InvalidModel(
            f"{directory}: {name} differs between config.json ({vision[name]}) and the image "
            f"processor ({image[file_name]})"
        )
    return found.pop() if found else default


def _pixel_limits(settings: Mapping[str, Any], default: tuple[int, int]) -> tuple[int, int]:
    """(min, max) pixels; explicit min_pixels/max_pixels win over `size`, as in transformers."""
    size = settings.get("size")
    size = size if isinstance(size, dict) else {}
    low = settings.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
    high = settings.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
    return int(low or default[0]), int(high or default[1])


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(values)] * 3 if isinstance(values, int | float) else [float(v) for v in values]
    if len(numbers) != 3:
        raise InvalidModel(f"image mean and std need 3 values, found {numbers}")
    return numbers[0], numbers[1], numbers[2]
