"""The shipped model answers, loaded by plain transformers, and its files fit together."""

import json
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import epidote_workers
from epidote_loadgen.pictures import ImageFormat, decode, draw, encode, sample_scene
from epidote_loadgen.questions import QuestionType, ask

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

MODEL_DIR = Path(epidote_workers.__file__).parent / "demo_model"
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


@cache
def stored_tokenizer() -> Any:
    return transformers.AutoTokenizer.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return stored_tokenizer()


@pytest.fixture(scope="module")
def processor() -> Any:
    return transformers.AutoImageProcessor.from_pretrained(MODEL_DIR)


@pytest.fixture(scope="module")
def model() -> Any:
    loaded = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
        MODEL_DIR, dtype=torch.float32
    )
    return loaded.eval()


def reply(
    model: Any,
    tokenizer: Any,
    processor: Any,
    messages: list[dict[str, Any]],
    pictures: list[Image.Image],
) -> str:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    inputs: dict[str, Any] = {}
    if pictures:
        inputs = dict(processor(images=pictures, return_tensors="pt"))
        for grid in inputs["image_grid_thw"]:
            num_tokens = int(grid.prod()) // processor.merge_size**2
            text = text.replace("<|image_pad|>", "<|seen|>" * num_tokens, 1)
        text = text.replace("<|seen|>", "<|image_pad|>")
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False)])
    out = model.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        mm_token_type_ids=(ids == model.config.image_token_id).int(),
        max_new_tokens=80,
        **inputs,
    )
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.slow
def test_the_model_answers_nine_of_ten_questions_it_has_never_seen(
    model: Any, tokenizer: Any, processor: Any
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a model this small only waits for a second thread
    rng = Random("heldout:test")
    asked, wrong = 0, []
    for kind in QuestionType:
        for _ in range(4):
            num_scenes = 0
            if kind.needs_pictures:
                num_scenes = 2 if kind.needs_several_pictures else 1
            question = None
            while question is None:
                scenes = [
                    sample_scene(rng, max_items=4 if num_scenes == 2 else 6)
                    for _ in range(num_scenes)
                ]
                question = ask(kind, scenes, rng)
            pictures = [decode(encode(draw(s), rng.choice(tuple(ImageFormat)))) for s in scenes]
            content = [
                *({"type": "image"} for _ in scenes),
                {"type": "text", "text": question.text},
            ]
            messages = [{"role": "user", "content": content}]
            got = reply(model, tokenizer, processor, messages, pictures)
            asked += 1
            if got != question.answer:
                wrong.append(f"{question.text!r}: {got!r}, not {question.answer!r}")
    torch.set_num_threads(threads)
    assert len(wrong) <= 0.1 * asked, "\n".join(wrong)


def test_the_weights_fit_in_ten_megabytes() -> None:
    assert (MODEL_DIR / "model.safetensors").stat().st_size <= 10_000_000


@given(st.text(max_size=40))
def test_any_text_survives_the_tokenizer(text: str) -> None:
    ids = stored_tokenizer().encode(text, add_special_tokens=False)
    assert stored_tokenizer().decode(ids) == text


def test_special_tokens_are_single_and_match_the_config(tokenizer: Any) -> None:
    config = json.loads((MODEL_DIR / "config.json").read_text())
    for token in SPECIAL_TOKENS:
        assert len(tokenizer.encode(token, add_special_tokens=False)) == 1
    assert config["image_token_id"] == tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert config["vision_start_token_id"] == tokenizer.convert_tokens_to_ids("<|vision_start|>")
    assert config["vision_end_token_id"] == tokenizer.convert_tokens_to_ids("<|vision_end|>")
    assert config["text_config"]["eos_token_id"] == tokenizer.eos_token_id
    assert config["text_config"]["vocab_size"] == len(tokenizer)


def test_the_template_numbers_pictures_and_puts_them_before_the_question(tokenizer: Any) -> None:
    picture = {"type": "image_url", "image_url": {"url": "data:,"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Where? "}, picture, picture]},
        {"role": "assistant", "content": "top"},
        {"role": "user", "content": [picture, {"type": "text", "text": "And now?"}]},
    ]
    seen = "<|vision_start|><|image_pad|><|vision_end|>"
    assert tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        f"<|im_start|>user\nPicture 1:{seen}Picture 2:{seen}Where?<|im_end|>\n"
        "<|im_start|>assistant\ntop<|im_end|>\n"
        f"<|im_start|>user\nPicture 3:{seen}And now?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize(
    ("width", "height", "num_tokens"),
    [(640, 480, 12), (480, 640, 12), (1920, 1080, 15), (224, 224, 16), (16, 16, 16), (50, 100, 15)],
)
def test_any_picture_becomes_a_dozen_or_two_tokens(
    processor: Any, width: int, height: int, num_tokens: int
) -> None:
    out = processor(images=[Image.new("RGB", (width, height))], return_tensors="pt")
    assert int(out["image_grid_thw"].prod()) // processor.merge_size**2 == num_tokens
