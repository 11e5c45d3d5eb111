"""Positions in time, height and width against transformers' get_rope_index."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.generation import MediaKind, MediaSpan
from epidote_engine.config import load_model_spec
from epidote_engine.layers.mrope_positions import mrope_positions
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

side = st.integers(1, 6)


@st.composite
def prompts(draw, frames_apart):
    """(number of tokens, spans, token types) of a random mix of text, images and videos."""
    types, spans = [0] * draw(st.integers(0, 3)), []
    for index in range(draw(st.integers(0, 4))):
        is_video = draw(st.booleans())
        t = draw(st.integers(1, 5)) if is_video else 1
        h, w = draw(side), draw(side)
        runs = []
        for _ in range(t if frames_apart else 1):
            types += [0] * draw(st.integers(1, 4))
            count = h * w if frames_apart else t * h * w
            runs.append((len(types), count))
            types += [2 if is_video else 1] * count
        spans.append(
            MediaSpan(
                key=str(index),
                kind=MediaKind.VIDEO if is_video else MediaKind.IMAGE,
                offset=runs[0][0],
                num_tokens=t * h * w,
                grid_thw=(t, 2 * h, 2 * w),
                second_per_grid_s=draw(st.floats(0.05, 4)) if is_video else 0.0,
                runs=tuple(runs) if len(runs) > 1 else (),
            )
        )
    types += [0] * draw(st.integers(1, 5))
    return types, spans


@pytest.fixture(scope="module", params=[Architecture.QWEN2_5_VL, Architecture.QWEN3_VL], ids=str)
def model(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp("mrope")
    saved = save_tiny_model(directory, request.param, seed=1)
    return SimpleNamespace(reference=saved.model, spec=load_model_spec(str(directory)))


@settings(max_examples=60)
@given(data=st.data())
def test_positions_equal_those_of_transformers(model, data):
    apart = model.spec.architecture is Architecture.QWEN3_VL
    types, spans = data.draw(prompts(apart))

    def grids(kind):
        found = [span.grid_thw for span in spans if span.kind is kind]
        return torch.tensor(found) if found else None

    seconds = [span.second_per_grid_s for span in spans if span.kind is MediaKind.VIDEO]
    extra = {} if apart else {"second_per_grid_ts": torch.tensor(seconds) if seconds else None}
    expected, delta = model.reference.get_rope_index(
        torch.zeros(1, len(types), dtype=torch.long),
        mm_token_type_ids=torch.tensor([types]),
        image_grid_thw=grids(MediaKind.IMAGE),
        video_grid_thw=grids(MediaKind.VIDEO),
        **extra,
    )
    positions, ours = mrope_positions(len(types), spans, model.spec)
    assert positions.dtype == "int64"
    assert torch.equal(torch.from_numpy(positions), expected[:, 0])
    # generate() goes on from the last token, whatever the delta (see mrope_positions)
    assert len(types) + ours == int(expected[:, 0, -1].max()) + 1
    if int(expected.max()) == int(expected[:, 0, -1].max()):
        assert ours == int(delta)
    longer, same = mrope_positions(len(types) + 3, spans, model.spec)
    assert same == ours
    assert longer[:, -1].tolist() == [len(types) + 2 + ours] * 3


def test_text_stands_where_it_is_counted(model):
    positions, delta = mrope_positions(5, (), model.spec)
    assert positions.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert delta == 0
    assert mrope_positions(0, (), model.spec)[1] == 0


def test_text_does_not_wait_for_the_time_of_a_long_video(tmp_path):
    save_tiny_model(tmp_path, Architecture.QWEN2_5_VL, seed=1)
    spec = load_model_spec(str(tmp_path))
    video = MediaSpan(
        key="v",
        kind=MediaKind.VIDEO,
        offset=1,
        num_tokens=3,
        grid_thw=(3, 2, 2),
        second_per_grid_s=100 / spec.vision.tokens_per_second,
    )
    positions, delta = mrope_positions(6, [video], spec)
    assert positions[0].tolist() == [0, 1, 101, 201, 2, 3]
    assert 6 + delta == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_tokens": 5}, "5 placeholders at 2 for a grid of 4"),
        ({"offset": 7}, "leave the prompt"),
        ({"grid_thw": (3, 4, 4), "runs": ((2, 4), (7, 4))}, "3 frames in 2 runs"),
    ],
)
def test_placeholders_that_cannot_be_are_refused(model, change, said):
    span = {
        "key": "k",
        "kind": MediaKind.VIDEO,
        "offset": 2,
        "num_tokens": 4,
        "grid_thw": (1, 4, 4),
        "second_per_grid_s": 1.0,
    }
    with pytest.raises(ValueError, match=said):
        mrope_positions(9, [MediaSpan(**{**span, **change})], model.spec)
