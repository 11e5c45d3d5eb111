"""Media in prompts: where the placeholders go, and whole prompts of real directories."""

import json
import subprocess
import sys

import numpy as np
import pytest

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaKind, MediaPixels
from epidote_engine.config import load_model_spec
from epidote_engine.model_files import InvalidModel
from epidote_engine.processing import PromptProcessor
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import IDS, noise_image, save_tiny_model

IMAGE, VIDEO = IDS["<|image_pad|>"], IDS["<|video_pad|>"]
START, END = IDS["<|vision_start|>"], IDS["<|vision_end|>"]


def reference_processor(processor):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(processor.spec.path)


def test_pictures_take_their_places_in_order(qwen2_5):
    media = [qwen2_5.prepare_image(noise_image(*size), str(size)) for size in ((90, 60), (30, 200))]
    content = [
        {"type": "image_url", "image_url": {"url": "never looked at"}},
        {"type": "text", "text": "and"},
        {"type": "image"},
    ]
    rendered = qwen2_5.render_chat([{"role": "user", "content": content}], media=media)
    first, second = rendered.media
    expected = [IDS["<|im_start|>"], *b"user\n"]
    expected += [START, *[IMAGE] * media[0].num_tokens, END, *b"and"]
    expected += [START, *[IMAGE] * media[1].num_tokens, END]
    expected += [IDS["<|im_end|>"], *b"\n", IDS["<|im_start|>"], *b"assistant\n"]
    assert list(rendered.token_ids) == expected
    for span, pixels in zip((first, second), media, strict=True):
        run = rendered.token_ids[span.offset : span.end]
        assert set(run) == {IMAGE}
        assert (len(run), span.key, span.grid_thw) == (
            pixels.num_tokens,
            pixels.key,
            pixels.grid_thw,
        )


def test_a_video_of_qwen2_5_is_one_run_with_its_time_step(qwen2_5):
    video = qwen2_5.prepare_video(np.zeros((5, 40, 60, 3), np.uint8), 2.5, "v")
    content = [{"type": "video"}, {"type": "text", "text": "?"}]
    (span,) = qwen2_5.render_chat([{"role": "user", "content": content}], media=[video]).media
    assert span.grid_thw[0] == 3
    assert span.runs == ()
    assert span.second_per_grid_s == 2 / 2.5
    assert span.kind is MediaKind.VIDEO


@pytest.mark.parametrize("num_frames", [1, 2, 5, 6])
def test_a_video_of_qwen3_is_frames_after_their_times(qwen3, num_frames):
    from transformers.models.qwen3_vl.processing_qwen3_vl import Qwen3VLProcessor

    fps = 3.0
    video = qwen3.prepare_video(np.zeros((num_frames, 40, 70, 3), np.uint8), fps, "v")
    image = qwen3.prepare_image(noise_image(50, 50), "i")
    content = [{"type": "video"}, {"type": "text", "text": "x"}, {"type": "image"}]
    rendered = qwen3.render_chat([{"role": "user", "content": content}], media=[video, image])
    span, picture = rendered.media
    times = Qwen3VLProcessor._calculate_timestamps(None, list(range(num_frames)), fps, 2)
    assert len(times) == span.grid_thw[0] == len(span.token_runs)
    at = len([IDS["<|im_start|>"], *b"user\n"])
    for (offset, count), time in zip(span.token_runs, times, strict=True):
        expected = [*f"<{time:.1f} seconds>".encode(), START, *[VIDEO] * count, END]
        assert list(rendered.token_ids[at : at + len(expected)]) == expected
        assert offset == at + len(expected) - count - 1
        at += len(expected)
    assert rendered.token_ids[at] == ord("x")
    assert sum(count for _, count in span.token_runs) == span.num_tokens == video.num_tokens
    assert picture.offset > span.end


def test_nobody_conjures_up_a_picture_by_spelling_its_placeholder(qwen3):
    image = qwen3.prepare_image(noise_image(64, 64), "i")
    text = "a <|image_pad|> b <|video_pad|>"
    content = [{"type": "text", "text": text}, {"type": "image"}]
    rendered = qwen3.render_chat([{"role": "user", "content": content}], media=[image])
    assert rendered.token_ids.count(IMAGE) == image.num_tokens
    assert VIDEO not in rendered.token_ids
    assert text in qwen3.detokenize(rendered.token_ids)
    again = qwen3.render_chat([{"role": "user", "content": content}], media=[image])
    assert again == rendered  # the marks are random, the result is not


@pytest.mark.parametrize("count", [0, 2])
def test_parts_and_media_must_match(qwen3, count):
    media = [qwen3.prepare_image(noise_image(40, 40), str(i)) for i in range(count)]
    with pytest.raises(InvalidRequest, match=r"1 media parts \(image\) for"):
        qwen3.render_chat([{"role": "user", "content": [{"type": "image"}]}], media=media)


def test_a_video_beyond_the_models_positions_is_refused(qwen2_5, qwen3):
    frames = np.zeros((6, 40, 40, 3), np.uint8)
    messages = [{"role": "user", "content": [{"type": "video"}]}]
    slow = qwen2_5.prepare_video(frames, 0.001, "v")
    with pytest.raises(InvalidRequest, match="videos reach position"):
        qwen2_5.render_chat(messages, media=[slow])
    # Qwen3-VL writes times as text: any duration has its place
    qwen3.render_chat(messages, media=[qwen3.prepare_video(frames, 0.001, "v")])


def test_a_template_that_hides_media_is_not_served_silently(tmp_path):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, seed=1)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].role }}")
    processor = PromptProcessor(load_model_spec(str(tmp_path)))
    image = processor.prepare_image(noise_image(40, 40), "i")
    with pytest.raises(InvalidRequest, match="does not show the media"):
        processor.render_chat([{"role": "user", "content": [{"type": "image"}]}], media=[image])


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"content": "x"}, "messages[0].role"),
        ({"role": "user", "content": 3}, "messages[0].content"),
        ({"role": "user", "content": [{"type": "audio"}]}, "messages[0].content[0].type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0].text"),
        ({"role": "user", "content": ["x"]}, "messages[0].content[0].type"),
        (
            {"role": "assistant", "tool_calls": [{"function": {"arguments": "{"}}]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_a_bad_message_is_named(qwen3, message, field):
    with pytest.raises(InvalidRequest) as refusal:
        qwen3.render_chat([message], media=[])
    assert refusal.value.field == field


def test_tool_calls_reach_the_template_as_objects(tmp_path):
    save_tiny_model(tmp_path, Architecture.LLAMA, seed=1)
    (tmp_path / "chat_template.jinja").write_text(
        "{{ messages[0].tool_calls[0].function.arguments.city }}|{{ messages[0].content }}|"
    )
    call = {"function": {"name": "f", "arguments": '{"city": "Bern"}'}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    processor = PromptProcessor.from_model(str(tmp_path))
    assert processor.detokenize(processor.render_chat([message]).token_ids) == "Bern||"


def test_a_video_that_lost_its_rate_is_a_bug_that_says_so(qwen3):
    video = qwen3.prepare_video(np.zeros((2, 40, 40, 3), np.uint8), 1.0, "v")
    bare = MediaPixels(**{k: v for k, v in vars(video).items() if k != "fps"})
    with pytest.raises(ValueError, match="no frame rate"):
        qwen3.render_chat([{"role": "user", "content": [{"type": "video"}]}], media=[bare])


def test_a_tokenizer_that_does_not_know_the_models_tokens_is_refused(tmp_path):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, seed=1)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"image_token_id": 270}))
    with pytest.raises(InvalidModel, match="token 270 is the image token"):
        PromptProcessor.from_model(str(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InvalidModel, match=r"no tokenizer\.json"):
        PromptProcessor.from_model(str(tmp_path))


def test_processing_needs_neither_torch_nor_transformers(qwen3):
    code = (
        "import sys\nfrom PIL import Image\n"
        "from epidote_engine.processing import PromptProcessor\n"
        f"p = PromptProcessor.from_model({str(qwen3.spec.path)!r})\n"
        "m = p.prepare_image(Image.new('RGB', (99, 50)), 'k')\n"
        "p.render_chat([{'role': 'user', 'content': [{'type': 'image'}]}], media=[m])\n"
        "sys.exit(any(name in sys.modules for name in ('torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_demo_model_is_served(tmp_path):
    from transformers import AutoTokenizer

    try:
        demo = PromptProcessor.from_model("demo")
    except InvalidModel as error:
        pytest.skip(str(error))
    image = demo.prepare_image(noise_image(640, 480), "i")
    reference = AutoTokenizer.from_pretrained(demo.spec.path)
    content = [{"type": "image"}, {"type": "text", "text": "How many red circles?"}]
    messages = [{"role": "user", "content": content}]
    text = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    expected = reference(text.replace("<|image_pad|>", "<|image_pad|>" * image.num_tokens))
    rendered = demo.render_chat(messages, media=[image])
    assert list(rendered.token_ids) == expected["input_ids"]
    assert demo.model_name == "demo"
    assert demo.eos_token_ids
    grids = reference_processor(demo)(images=[noise_image(640, 480)])["image_grid_thw"]
    assert [list(image.grid_thw)] == grids.tolist()
