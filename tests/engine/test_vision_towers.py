"""Our vision towers against transformers', on fresh random weights and odd sizes."""

import numpy as np
import pytest
import torch

from epidote_core.generation import MediaKind, MediaPixels
from epidote_engine.config import load_model_spec
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_engine.vision import geometry
from epidote_engine.vision.encoder import VisionEncoder
from epidote_engine.vision.patches import Patchifier
from epidote_engine.weights import vision_weights

TOWERS = [Architecture.QWEN2_5_VL, Architecture.QWEN3_VL]
SEEDS = range(4)


def medium(rng, spec, grid, num_frames):
    """Noise of `grid` (rows, columns of patches) and `num_frames`."""
    patch = spec.vision.patch
    rows, columns = grid
    shape = (num_frames, rows * patch, columns * patch, 3)
    times = -(-num_frames // spec.vision.temporal_patch)
    return MediaPixels(
        key=f"{rng.integers(2**62):x}",
        kind=MediaKind.IMAGE if num_frames == 1 else MediaKind.VIDEO,
        num_frames=num_frames,
        height=shape[1],
        width=shape[2],
        grid_thw=(times, rows, columns),
        num_tokens=times * rows * columns // 4,
        data=rng.integers(0, 256, shape, dtype=np.uint8).tobytes(),
    )


def random_media(rng, spec, count=5):
    """Images and videos of odd sizes, a single merge group among them."""
    sizes = [tuple(int(n) for n in 2 * rng.integers(1, 9, 2)) for _ in range(count)]
    frames = [1, 1, 2, *(int(n) for n in rng.integers(1, 6, count))]
    return [medium(rng, spec, (2, 2), 1)] + [
        medium(rng, spec, size, num) for size, num in zip(sizes, frames, strict=False)
    ]


def reference_patches(media, spec):
    """`pixel_values` as the definition says it, one number at a time where possible."""
    vision, all_patches = spec.vision, []
    for item in media:
        frames = np.frombuffer(item.data, np.uint8)
        frames = frames.reshape(item.num_frames, item.height, item.width, 3)
        while len(frames) % vision.temporal_patch:
            frames = np.concatenate([frames, frames[-1:]])
        scaled = (frames * np.float64(vision.normalisation.rescale)).astype(np.float32)
        norm = vision.normalisation
        values = (scaled - np.float32(norm.mean)) / np.float32(norm.std)
        t, h, w = item.grid_thw
        for time in range(t):
            for row, column in geometry.patch_positions(h, w, vision.merge):
                p = vision.patch
                block = values[
                    time * vision.temporal_patch : (time + 1) * vision.temporal_patch,
                    row * p : (row + 1) * p,
                    column * p : (column + 1) * p,
                ]
                all_patches.append(block.transpose(3, 0, 1, 2).ravel())
    return torch.from_numpy(np.stack(all_patches))


def reference_rows(model, patches, media):
    """What transformers' tower gives: merged rows, then the deep-stack levels."""
    grids = torch.tensor([item.grid_thw for item in media])
    with torch.no_grad():
        out = model.model.visual(patches, grid_thw=grids, return_dict=True)
    return torch.cat([out.pooler_output, *getattr(out, "deepstack_features", [])], dim=1)


@pytest.fixture(params=[(tower, seed) for tower in TOWERS for seed in SEEDS], ids=str)
def tower(request, tmp_path):
    architecture, seed = request.param
    model = save_tiny_model(tmp_path, architecture, seed)
    return model, load_model_spec(str(tmp_path)), np.random.default_rng(seed)


def encoder_of(spec, dtype=torch.float32):
    return VisionEncoder(spec, vision_weights(spec, dtype=dtype, device="cpu"), dtype, "cpu")


def test_rows_equal_those_of_transformers(tower):
    model, spec, rng = tower
    media = random_media(rng, spec)
    patches = Patchifier(spec.vision, dtype=torch.float32, device=torch.device("cpu"))(media)
    assert torch.equal(patches, reference_patches(media, spec))
    rows = encoder_of(spec).encode(media)
    assert [tuple(r.shape) for r in rows] == [
        (item.num_tokens, spec.media_row_width) for item in media
    ]
    expected = reference_rows(model, patches, media)
    torch.testing.assert_close(torch.cat(rows), expected, rtol=1e-4, atol=1e-5)


def test_a_medium_encodes_alike_in_any_company(tower):
    _, spec, rng = tower
    media = random_media(rng, spec, 3)
    encoder = encoder_of(spec)
    for item, together in zip(media, encoder.encode(media), strict=True):
        torch.testing.assert_close(encoder.encode([item])[0], together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", TOWERS)
def test_half_precision_stays_close(tmp_path, architecture, dtype):
    save_tiny_model(tmp_path, architecture, seed=21)
    spec = load_model_spec(str(tmp_path))
    media = random_media(np.random.default_rng(21), spec)
    exact = torch.cat(encoder_of(spec).encode(media))
    rough = torch.cat(encoder_of(spec, dtype).encode(media))
    assert rough.dtype is dtype
    error = (rough.float() - exact).norm() / exact.norm()
    assert error < (0.03 if dtype is torch.bfloat16 else 0.004)


@pytest.mark.parametrize("architecture", TOWERS)
def test_sizes_that_disagree_are_refused_before_any_work(tmp_path, architecture):
    save_tiny_model(tmp_path, architecture, seed=2)
    spec = load_model_spec(str(tmp_path))
    encoder = encoder_of(spec)
    good = medium(np.random.default_rng(0), spec, (4, 6), 1)
    for change in (
        {"data": good.data[:-3]},
        {"grid_thw": (1, 6, 6)},
        {"num_tokens": 5},
        {"num_frames": 3},
    ):
        with pytest.raises(ValueError, match="do not make grid"):
            encoder.encode([good, MediaPixels(**{**vars(good), **change})])
    assert encoder.encode([]) == []


@pytest.mark.parametrize(("height", "width", "side"), [(1, 1, 1), (5, 7, 2), (4, 4, 4), (3, 9, 4)])
def test_every_merge_group_is_in_one_window_with_its_neighbours(height, width, side):
    order, sizes = geometry.window_order(height, width, side)
    assert sorted(order) == list(range(height * width))
    assert all(0 < size <= side * side for size in sizes)
    start = 0
    for size in sizes:
        rows, columns = np.divmod(order[start : start + size], width)
        assert len({(r // side, c // side) for r, c in zip(rows, columns, strict=True)}) == 1
        start += size
