"""Prompts against transformers' tokenizer, chat template and image processor."""

import json
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from epidote_core.errors import InvalidRequest
from epidote_core.generation import MediaKind, MediaPixels
from epidote_engine.chat_template import ChatTemplate
from epidote_engine.config import load_model_spec
from epidote_engine.media_resize import fit, upright_rgb
from epidote_engine.model_files import InvalidModel
from epidote_engine.processing import PromptProcessor
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import IDS, save_tiny_model, save_tokenizer
from epidote_engine.vision.patches import Patchifier

IMAGE, VIDEO = IDS["<|image_pad|>"], IDS["<|video_pad|>"]
START, END = IDS["<|vision_start|>"], IDS["<|vision_end|>"]


def directory_of(architecture, tmp_path_factory):
    directory = tmp_path_factory.mktemp("processing") / "tiny"
    save_tiny_model(directory, architecture, seed=11)
    return directory


@pytest.fixture(scope="module")
def qwen2_5(tmp_path_factory):
    return PromptProcessor.from_model(str(directory_of(Architecture.QWEN2_5_VL, tmp_path_factory)))


@pytest.fixture(scope="module")
def qwen3(tmp_path_factory):
    return PromptProcessor.from_model(str(directory_of(Architecture.QWEN3_VL, tmp_path_factory)))


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return PromptProcessor.from_model(str(directory_of(Architecture.LLAMA, tmp_path_factory)))


def noise(width, height, mode="RGB", seed=0):
    """A picture of random bytes; resizing errors can't hide in it."""
    depth = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width) if depth == 1 else (height, width, depth)
    data = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(data, None if mode != "P" else "L").convert(mode)


def reference_processor(processor):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil.from_pretrained(processor.spec.path)


# --- pictures ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (3, 90), (57, 31), (200, 200), (640, 333), (500, 4)])
@pytest.mark.parametrize("name", ["qwen2_5", "qwen3"])
def test_pixel_values_are_those_of_the_reference_bit_for_bit(request, name, size):
    processor = request.getfixturevalue(name)
    image = noise(*size, seed=sum(size))
    reference = reference_processor(processor)(images=[image], return_tensors="pt")
    ours = processor.prepare_image(image, "k")
    assert [list(ours.grid_thw)] == reference["image_grid_thw"].tolist()
    patchify = Patchifier(processor.spec.vision, dtype=torch.float32, device=torch.device("cpu"))
    assert torch.equal(patchify([ours]), reference["pixel_values"])


@pytest.mark.parametrize("mode", ["RGBA", "L", "LA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb_as_in_the_reference(qwen3, mode):
    image = noise(70, 50, mode)
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
    noise(64, 96).save(file, "PNG", exif=exif)
    opened = Image.open(BytesIO(file.getvalue()))
    expected = load_image(Image.open(BytesIO(file.getvalue())))  # transposes
    assert np.array_equal(np.asarray(upright_rgb(opened)), np.asarray(expected))
    keys = {qwen3.prepare_image(i, "same").key for i in (opened, noise(64, 96))}
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
    image, frames = noise(64, 64), np.zeros((2, 64, 64, 3), np.uint8)
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
        (np.zeros((2, 8, 8, 3), np.uint8), 0.0, "above 0"),
        (np.zeros((2, 8, 8, 3), np.uint8), float("nan"), "above 0"),
    ],
)
def test_what_is_no_video_is_refused(qwen2_5, frames, fps, said):
    with pytest.raises(InvalidRequest, match=said):
        qwen2_5.prepare_video(frames, fps, "k")


def test_a_long_thin_picture_is_refused(qwen3):
    with pytest.raises(InvalidRequest, match="aspect ratio must be at most 200"):
        qwen3.prepare_image(Image.new("RGB", (2010, 10)), "k")


# --- text and templates -----------------------------------------------------------------------

TEXTS = st.text(max_size=30) | st.sampled_from(["<|im_end|>", "  \n\n", "漢字 ß", "🙂" * 3])


@settings(max_examples=60)
@given(turns=st.lists(TEXTS, min_size=1, max_size=4), prompt=st.booleans())
def test_chats_are_those_of_apply_chat_template(llama, turns, prompt):
    from transformers import AutoTokenizer

    reference = AutoTokenizer.from_pretrained(llama.spec.path)
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(turns)
    ]
    expected = reference.apply_chat_template(
        messages, add_generation_prompt=prompt, return_dict=False
    )
    rendered = llama.render_chat(messages, add_generation_prompt=prompt)
    assert list(rendered.token_ids) == expected
    assert llama.detokenize(expected) == reference.decode(expected)


def test_templates_get_the_environment_that_transformers_gives(tmp_path):
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(
        "{%- set ns = namespace(n=0) -%}\n"
        "{% for m in messages %}\n  {%- if m.role == 'skip' %}{% continue %}{% endif %}\n"
        "    {% set ns.n = ns.n + 1 %}\n"
        "[{{ m.content | trim }}|{{ m | tojson }}]\n{% endfor %}\n"
        "{% generation %}{{ ns.n }}{% endgeneration %}{{ eos_token }}{{ mood }}\n"
        "{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
        "{{ strftime_now('%Y') | length }}{{ bos_token is defined }}"
    )
    messages = [
        {"role": "skip", "content": "x"},
        {"role": "user", "content": " <b>ü</b> "},
        {"role": "assistant", "content": "", "extra": [1, {"a": None}]},
    ]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    reference = AutoTokenizer.from_pretrained(tmp_path)
    ours = ChatTemplate(tmp_path, {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})
    expected = reference.apply_chat_template(messages, tools=tools, tokenize=False, mood="calm")
    assert ours.render(messages, tools=tools, add_generation_prompt=False, mood="calm") == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception('no') }}",
        "{{ 1 + 'a' }}",
        "{{ messages[7].role.upper() }}",
        "{% for i in range(10 ** 9) %}{% endfor %}",
    ],
)
def test_a_template_that_fails_or_breaks_out_is_the_requests_error(tmp_path, source):
    save_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(source)
    with pytest.raises(InvalidRequest, match="chat template refuses"):
        ChatTemplate(tmp_path, {}).render([{"role": "user", "content": "x"}])


def test_a_model_without_template_or_with_a_broken_one(tmp_path):
    with pytest.raises(InvalidRequest, match="no chat template"):
        ChatTemplate(tmp_path, {}).render([])
    (tmp_path / "chat_template.jinja").write_text("{% if %}")
    with pytest.raises(InvalidModel, match="does not compile"):
        ChatTemplate(tmp_path, {})


def test_older_places_of_templates_are_read(tmp_path):
    named = [{"name": "default", "template": "d"}, {"name": "tool_use", "template": "t"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    template = ChatTemplate(tmp_path, {})
    assert template.render([]) == "d"
    assert template.render([], tools=[{}]) == "t"
    (tmp_path / "chat_template.json").write_text(json.dumps({"chat_template": "newer"}))
    assert ChatTemplate(tmp_path, {}).render([]) == "newer"


def test_a_text_model_joins_parts_and_refuses_pictures(llama):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    joined = llama.render_chat([{"role": "user", "content": parts}])
    assert joined == llama.render_chat([{"role": "user", "content": "a\nb"}])
    assert not llama.supports_images
    with pytest.raises(InvalidRequest) as refusal:
        llama.render_chat([{"role": "user", "content": [{"type": "image_url"}]}], media=[])
    assert refusal.value.field == "messages[0].content[0]"
    with pytest.raises(InvalidRequest, match="takes no images"):
        llama.prepare_image(noise(9, 9), "k")


def test_raw_prompts(llama):
    assert llama.render_text("hé").token_ids == tuple("hé".encode())
    assert llama.render_text([1, 2]).token_ids == (1, 2)
    for wrong in (-1, llama.vocab_size):
        with pytest.raises(InvalidRequest, match="token ids must be in"):
            llama.render_text([wrong])
    assert llama.tokenize("<|im_end|>", add_special_tokens=True) == [IDS["<|im_end|>"]]


def test_bytes_of_tokens_make_up_the_text(llama):
    text = "Größe 漢 🙂<|im_end|>"
    ids = llama.tokenize(text, add_special_tokens=False)
    assert b"".join(map(llama.token_bytes, ids)).decode() == text
    assert llama.token_bytes(llama.vocab_size - 1) == b""  # padding of the vocabulary


# --- media in prompts -------------------------------------------------------------------------


def test_pictures_take_their_places_in_order(qwen2_5):
    media = [qwen2_5.prepare_image(noise(*size), str(size)) for size in ((90, 60), (30, 200))]
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
    image = qwen3.prepare_image(noise(50, 50), "i")
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
    image = qwen3.prepare_image(noise(64, 64), "i")
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
    media = [qwen3.prepare_image(noise(40, 40), str(i)) for i in range(count)]
    with pytest.raises(InvalidRequest, match=r"1 media parts \(image\) for"):
        qwen3.render_chat([{"role": "user", "content": [{"type": "image"}]}], media=media)


def test_a_template_that_hides_media_is_not_served_silently(tmp_path):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, seed=1)
    (tmp_path / "chat_template.jinja").write_text("{{ messages[0].role }}")
    processor = PromptProcessor(load_model_spec(str(tmp_path)))
    image = processor.prepare_image(noise(40, 40), "i")
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
            "messages[0].tool_calls",
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


# --- the whole --------------------------------------------------------------------------------


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
    image = demo.prepare_image(noise(640, 480), "i")
    reference = AutoTokenizer.from_pretrained(demo.spec.path)
    content = [{"type": "image"}, {"type": "text", "text": "How many red circles?"}]
    messages = [{"role": "user", "content": content}]
    text = reference.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    expected = reference(text.replace("<|image_pad|>", "<|image_pad|>" * image.num_tokens))
    rendered = demo.render_chat(messages, media=[image])
    assert list(rendered.token_ids) == expected["input_ids"]
    assert demo.model_name == "demo"
    assert demo.eos_token_ids
    grids = reference_processor(demo)(images=[noise(640, 480)])["image_grid_thw"]
    assert [list(image.grid_thw)] == grids.tolist()
