"""Text prompts against transformers' tokenizer and apply_chat_template."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.errors import InvalidRequest
from epidote_engine.chat_messages import template_messages
from epidote_engine.chat_template import ChatTemplate
from epidote_engine.model_files import InvalidModel
from epidote_engine.tiny_models import IDS, noise_image, save_tokenizer

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


# The chat template of the hub's Qwen2.5-VL models (Apache-2.0).
QWEN2_5_VL = (
    "{% set image_count = namespace(value=0) %}{% set video_count = namespace(value=0) %}"
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' or 'image' in content or 'image_url' in content %}"
    "{% set image_count.value = image_count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ image_count.value }}: {% endif %}"
    "<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' or 'video' in content %}"
    "{% set video_count.value = video_count.value + 1 %}"
    "{% if add_vision_id %}Video {{ video_count.value }}: {% endif %}"
    "<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("numbered", [False, True])
def test_the_template_of_real_checkpoints_renders_alike(tmp_path, numbered):
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    (tmp_path / "chat_template.jinja").write_text(QWEN2_5_VL)
    sent = [{"type": "image_url", "image_url": {"url": "data:"}}, {"type": "text", "text": "a\n"}]
    messages = [{"role": "user", "content": sent}, {"role": "assistant", "content": "b"}]
    messages.append({"role": "user", "content": [{"type": "video", "video": "x"}, *sent]})
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True, add_vision_id=numbered
    )
    ours, kinds = template_messages(messages, takes_media=True)
    assert ChatTemplate(tmp_path, {}).render(ours, add_vision_id=numbered) == expected
    assert kinds == ["image", "video", "image"]


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
        llama.prepare_image(noise_image(9, 9), "k")


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


DEEP = {"a": 1}
for _ in range(3000):
    DEEP = {"a": DEEP}


@pytest.mark.parametrize(
    ("call", "field"),
    [
        ({"function": {"name": "f", "arguments": "[" * 900 + "]" * 900}},
         "messages[0].tool_calls[1].function.arguments"),
        ({"function": {"name": "f", "arguments": "[" * 100_000 + "]" * 100_000}},
         "messages[0].tool_calls[1].function.arguments"),
        ({"function": {"name": "f", "arguments": "{"}},
         "messages[0].tool_calls[1].function.arguments"),
        ({"a": DEEP}, "messages[0].tool_calls"),
    ],
    ids=["900 deep", "100,000 deep", "no JSON", "deep call"],
)  # fmt: skip
def test_deep_tool_calls_are_refused_by_name(llama, qwen3, call, field):
    message = {"role": "assistant", "content": "", "tool_calls": [{}, call]}
    for processor in (llama, qwen3):
        with pytest.raises(InvalidRequest) as caught:
            processor.render_chat([message])
        assert caught.value.field == field
