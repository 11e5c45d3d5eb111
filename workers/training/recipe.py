"""Every choice that shapes the demo model: sizes, special tokens, chat template, picture sizes.

Text and pictures meet as in Qwen3-VL (Qwen3-VL Technical Report, arXiv 2511.21631): one
`<|image_pad|>` for each merged 2x2 group of patches, between `<|vision_start|>` and
`<|vision_end|>`. The sizes are the smallest that learned the task in a coffee break on two cores.
"""

import json
from pathlib import Path
from typing import Any

from transformers import (
    GenerationConfig,
    PreTrainedTokenizerFast,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

ROOT = Path(__file__).resolve().parents[2]
MODEL_DIR = ROOT / "workers" / "epidote_workers" / "demo_model"

SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
VOCAB_SIZE = 1024

PATCH_PX = 16
MERGE = 2
FACTOR_PX = PATCH_PX * MERGE
# A picture becomes 12 to 20 tokens, at least three rows and three columns of them up to 2:1: the
# nine places never share a token. 640x480 becomes 128x96, 3 rows of 4.
MIN_PIXELS = 12 * FACTOR_PX**2
MAX_PIXELS = 18 * FACTOR_PX**2
MAX_TOKENS = 20
PIXEL_MEAN = 0.5
PIXEL_STD = 0.5

# Pictures lead their turn, numbered through the conversation, wherever the client put them: the
# model then needs to learn one order only.
CHAT_TEMPLATE = """\
{%- set ns = namespace(pictures=0) -%}
{%- for message in messages -%}
{{- '<|im_start|>' + message['role'] + '\\n' -}}
{%- if message['content'] is string -%}
{{- message['content'] | trim -}}
{%- elif message['content'] -%}
{%- for part in message['content'] -%}
{%- if part['type'] in ('image', 'image_url', 'input_image') or 'image' in part -%}
{%- set ns.pictures = ns.pictures + 1 -%}
{{- 'Picture ' ~ ns.pictures ~ ':<|vision_start|><|image_pad|><|vision_end|>' -}}
{%- endif -%}
{%- endfor -%}
{%- for part in message['content'] -%}
{%- if 'text' in part -%}
{{- part['text'] | trim -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{- '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""


def model_config(tokenizer: PreTrainedTokenizerFast) -> Qwen3VLConfig:
    """The architecture, about 3.7 million parameters."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIAL_TOKENS}
    return Qwen3VLConfig(
        text_config={
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 192,
            "intermediate_size": 512,
            "num_hidden_layers": 5,
            "num_attention_heads": 6,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "max_position_embeddings": 4096,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [6, 5, 5],
                "mrope_interleaved": True,
            },
            "bos_token_id": None,
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
            "tie_word_embeddings": True,
        },
        vision_config={
            "depth": 4,
            "hidden_size": 128,
            "intermediate_size": 384,
            "num_heads": 4,
            "patch_size": PATCH_PX,
            "spatial_merge_size": MERGE,
            "temporal_patch_size": 2,
            "out_hidden_size": 192,
            "num_position_embeddings": 144,
            "deepstack_visual_indexes": [1],
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )


def processor_config() -> dict[str, Any]:
    """What `preprocessor_config.json` says: any file shrinks or grows to 12-20 tokens."""
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "resample": 3,  # bicubic
        "size": {"shortest_edge": MIN_PIXELS, "longest_edge": MAX_PIXELS},
        "min_pixels": MIN_PIXELS,
        "max_pixels": MAX_PIXELS,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [PIXEL_MEAN] * 3,
        "image_std": [PIXEL_STD] * 3,
        "patch_size": PATCH_PX,
        "merge_size": MERGE,
        "temporal_patch_size": 2,
    }


def save_model(model: Qwen3VLForConditionalGeneration, directory: Path) -> None:
    """Write the weights, in the model's dtype, and its configs. The tokenizer is not touched."""
    eos = model.config.text_config.eos_token_id
    pad = model.config.text_config.pad_token_id
    model.generation_config = GenerationConfig(
        do_sample=False, eos_token_id=[eos, pad], pad_token_id=pad
    )
    model.save_pretrained(directory)
    text = json.dumps(processor_config(), indent=2) + "\n"
    (directory / "preprocessor_config.json").write_text(text, encoding="utf-8")
