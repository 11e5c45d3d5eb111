"""Pictures and videos at a model's size, bit for bit those of transformers' image processor."""

from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epidote_core.errors import InvalidRequest
from epidote_engine.media_resize import fit, upright_rgb
from epidote_engine.tiny_models import noise_image
from epidote_engine.vision.patches import Patchifier


def reference_processor(processor):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(processor.spec.path)


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (57, 31), (200, 200), (640, 333), (500, 4)])
@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_pixel_values_are_those_of_the_reference_bit_for_bit(request, name, size):
    processor = request.getfixturevalue(name)
    image = noise_image(*size, seed=sum(size))
    reference = reference_processor(processor)(images=[image], return_tensors="pt")
    ours = processor.prepare_image(image, "k")
    assert [list(ours.grid_thw)] == reference["image_grid_thw"].tolist()
    patchify = Patchifier(processor.spec.vision, dtype=torch.float32, device=torch.device("cpu"))
    assert torch.equal(patchify([ours]), reference["pixel_values"])


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb_as_in_the_reference(qwen3, mode):
    image = noise_image(70, 50, mode)
    if mode == "P":
        image.info["transparency"] = 7
    reference = reference_processor(qwen3)(images=[image], return_tensors="pt")
    patchify = Patchifier(qwen3.spec.vision, dtype=torch.float32, device=torch.device("cpu"))
    ours = patchify([qwen3.prepare_image(image, "k")])
    assert torch.equal(ours, reference["pixel_values"])


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_deep_greys_are_readable(qwen3, mode):
    assert qwen3.prepare_image(Image.new(mode, (40, 40), 200), "k").num_tokens >= 1


@pytest.mark.parametrize("turn", range(1, 9))
def test_pictures_are_turned_as_exif_says(qwen3, turn):
    from transformers.image_utils import load_image

    file = BytesIO()
    exif = Image.Exif()
    exif[0x0112] = turn
    noise_image(64, 96).save(file, "PNG", exif=exif)
    opened = Image.open(BytesIO(file.getvalue()))
    expected = load_image(Image.open(BytesIO(file.getvalue())))  # transposes
    assert np.array_equal(np.asarray(upright_rgb(opened)), np.asarray(expected))
    keys = {qwen3.prepare_image(i, "same").key for i in (opened, noise_image(64, 96))}
    assert len(keys) == (1 if turn == 1 else 2)


@settings(max_examples=300)
@given(
    height=st.integers(1, 5000),
    width=st.integers(1, 5000),
    factor=st.sampled_from((28, 32)),
    low=st.integers(1, 40),
    span=st.integers(0, 2000),
)
def test_sizes_are_those_of_the_reference(height, width, factor, low, span):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    limits = {"min_pixels": low * factor**2, "max_pixels": (low + span) * factor**2}
    if max(height, width) > 200 * min(height, width):
        with pytest.raises(InvalidRequest, match="aspect ratio"):
            fit(height, width, factor=factor, **limits)
        return
    assert fit(height, width, factor=factor, **limits) == smart_resize(
        height, width, factor=factor, **limits
    )


@settings(max_examples=200)
@given(
    frames=st.integers(2, 40),
    height=st.integers(8, 2000),
    width=st.integers(8, 2000),
    high=st.integers(4, 400),
)
def test_video_sizes_are_those_of_the_reference(frames, height, width, high):
    from dataclasses import replace

    from transformers.models.qwen3_vl.video_processing_qwen3_vl import smart_resize

    from epidote_engine.image_settings import ImageSettings
    from epidote_engine.media_resize import video_size
    from epidote_engine.vision.spec import Normalisation

    settings_ = ImageSettings(
        min_pixels=1,
        max_pixels=10**9,
        patch=16,
        temporal_patch=2,
        merge=2,
        normalisation=Normalisation(mean=(0, 0, 0), std=(1, 1, 1)),
        video_min_pixels=4096,
        video_max_pixels=high * 1024,
        video_limits_total=True,
    )
    limits = {"min_pixels": 4096, "max_pixels": high * 1024}
    try:
        expected = smart_resize(frames, height, width, 2, 32, **limits)
    except ValueError:
        with pytest.raises(InvalidRequest):
            video_size(frames, height, width, settings_)
        return
    assert video_size(frames, height, width, settings_) == expected
    alone = replace(settings_, video_limits_total=False)
    assert video_size(frames, height, width, alone) == fit(height, width, factor=32, **limits)


def test_keys_tell_content_options_and_kind_apart(qwen3, qwen2_5):
    image, frames = noise_image(64, 64), np.zeros((2, 64, 64, 3), np.uint8)
    keys = [
        qwen3.prepare_image(image, "a").key,
        qwen3.prepare_image(image, "b").key,
        qwen2_5.prepare_image(image, "a").key,
        qwen3.prepare_video(frames, 1.0, "a").key,
        qwen3.prepare_video(frames, 2.0, "a").key,
    ]
    assert len(set(keys)) == len(keys)
    assert qwen3.prepare_image(image.copy(), "a").key == keys[0]


@pytest.mark.parametrize(
    ("frames", "fps", "said"),
    [
        (np.zeros((2, 8, 8, 4), np.uint8), 1.0, "wanted uint8"),
        (np.zeros((2, 8, 8, 3), np.float32), 1.0, "wanted uint8"),
        (np.zeros((0, 8, 8, 3), np.uint8), 1.0, "wanted uint8"),
        (np.zeros((2, 0, 8, 3), np.uint8), 1.0, "no pixels"),
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0, "at least"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "at least"),
        (np.zeros((2, 8, 8, 3), np.uint8), 1e-9, "at least 0.0001"),
    ],
)
def test_what_is_no_video_is_refused(qwen2_5, frames, fps, said):
    with pytest.raises(InvalidRequest, match=said):
        qwen2_5.prepare_video(frames, fps, "k")


def test_a_long_thin_picture_is_refused(qwen3):
    with pytest.raises(InvalidRequest, match="aspect ratio must be at most 200"):
        qwen3.prepare_image(Image.new("RGB", (2010, 10)), "k")
