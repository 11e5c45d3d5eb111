"""This file is about tiny random models in Hugging Face's layout, for tests and benches.

Every architecture, thousands of parameters, a byte-level tokenizer and a chat template: what a
real model directory has, made in a tenth of a second and different for every seed.
"""

import json
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from epidote_engine.text_config import Architecture
from epidote_engine.tokenizer import byte_alphabet

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
IDS = {token: 256 + i for i, token in enumerate(SPECIALS)}
VOCAB = 256 + len(SPECIALS) + 9  # larger than the tokenizer's, as real vocabularies are

CHAT_TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' }}
{%- if message.content is string %}
{{- message.content }}
{%- else %}
{%- for part in message.content %}
{%- if part.type == 'image' %}
{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' %}
{{- '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- else %}
{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""


def save_tiny_model(
    directory: Path,
    architecture: Architecture | str,
    seed: int,
    *,
    dtype: torch.dtype = torch.float32,
    max_shard_size: str = "1GB",
) -> Any:
    """Write a random model with tokenizer and processor settings; returns the transformers model.

    Sizes and weights follow from `seed`. The model never stops by itself for long enough to
    compare tokens: its end token is as likely as any other.
    """
    import transformers

    architecture = Architecture(architecture)
    rng = Random(f"{architecture}:{seed}")
    torch_rng = torch.Generator().manual_seed(rng.getrandbits(63))
    config = _config(architecture, rng)
    model = getattr(transformers, architecture.value)(config).eval()
    _randomise(model, torch_rng)
    model.to(dtype)
    model.generation_config = transformers.GenerationConfig(
        eos_token_id=IDS["<|im_end|>"], pad_token_id=IDS["<|endoftext|>"]
    )
    model.save_pretrained(directory, max_shard_size=max_shard_size)
    save_tokenizer(directory)
    if architecture.has_vision:
        _save_processor(directory, config.vision_config)
    return model


def noise_image(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """A picture of random bytes: errors of resizing or ordering can't hide in it."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    data = np.random.default_rng(seed).integers(0, 256, (height, width, bands), dtype=np.uint8)
    if bands == 1:
        return Image.fromarray(data[:, :, 0]).convert(mode)
    return Image.frombytes(mode, (width, height), data.tobytes())


def save_tokenizer(directory: Path) -> None:
    """One token per byte, the special tokens, and the chat template."""
    vocabulary = dict(byte_alphabet())
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIALS])
    tokenizer.save(str(directory / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(settings), "utf-8")
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, "utf-8")


def _config(architecture: Architecture, rng: Random) -> Any:
    import transformers

    kv_heads = rng.choice((1, 2))
    head_dim = 16
    heads = kv_heads * rng.choice((1, 2, 3))
    own_head_dim = architecture.is_qwen3
    hidden = 32 * rng.choice((1, 2)) if own_head_dim else heads * head_dim
    text: dict[str, Any] = {
        "vocab_size": VOCAB,
        "hidden_size": hidden,
        "intermediate_size": 24 * rng.choice((1, 2, 3)),
        "num_hidden_layers": rng.choice((2, 3)),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": 2048,
        "rope_parameters": {"rope_type": "default", "rope_theta": rng.choice((1e4, 1e6))},
        "bos_token_id": None,
        "eos_token_id": IDS["<|im_end|>"],
        "pad_token_id": IDS["<|endoftext|>"],
    }
    if own_head_dim:
        text["head_dim"] = head_dim
    if architecture.has_experts:
        num_experts = rng.choice((4, 7))
        text |= {
            "num_experts": num_experts,
            "num_experts_per_tok": rng.choice((1, 2, 3)),
            "moe_intermediate_size": 8 * rng.choice((1, 2, 3)),
            "mlp_only_layers": rng.choice(([], [0])),
            "decoder_sparse_step": rng.choice((1, 1, 2)),
        }
        if not architecture.has_vision:
            text["norm_topk_prob"] = rng.random() < 0.5
    tied = rng.random() < 0.5
    if not architecture.has_vision:
        name = architecture.value.replace("ForCausalLM", "Config")
        return getattr(transformers, name)(**text, tie_word_embeddings=tied)
    sections = rng.choice(((2, 3, 3), (4, 2, 2)))
    text["rope_parameters"]["mrope_section"] = list(sections)
    vision: dict[str, Any] = {
        "depth": 3,
        "hidden_size": 32,
        "num_heads": rng.choice((1, 2, 4)),
        "intermediate_size": 40,
        "out_hidden_size": hidden,
    }
    common = {
        "image_token_id": IDS["<|image_pad|>"],
        "video_token_id": IDS["<|video_pad|>"],
        "vision_start_token_id": IDS["<|vision_start|>"],
        "vision_end_token_id": IDS["<|vision_end|>"],
        "tie_word_embeddings": tied,
    }
    if architecture is Architecture.QWEN2_5_VL:
        text["use_sliding_window"] = False
        vision |= {
            "patch_size": 14,
            "window_size": 28 * rng.choice((1, 2, 3)),
            "fullatt_block_indexes": [rng.randrange(3)],
            "tokens_per_second": rng.choice((2, 25)),
        }
        return transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **common)
    text["rope_parameters"]["mrope_interleaved"] = True
    levels = rng.randrange(1, text["num_hidden_layers"] + 1)
    vision |= {
        "patch_size": 16,
        "num_position_embeddings": rng.choice((16, 49)),
        "deepstack_visual_indexes": sorted(rng.sample(range(3), min(levels, 3))),
    }
    name = architecture.value.replace("ForConditionalGeneration", "Config")
    return getattr(transformers, name)(text_config=text, vision_config=vision, **common)


def _randomise(model: Any, rng: torch.Generator) -> None:
    """Weights of a size that keeps signals alive: the usual tiny ones make every answer alike."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            values = torch.randn(weight.shape, generator=rng)
            if name.endswith("embed_tokens.weight"):
                values *= 0.15  # tied, it is the head too: larger ones would only repeat tokens
            elif weight.dim() > 1 and "pos_embed" not in name:
                inputs = weight.shape[-1] if ".experts." in name else weight[0].numel()
                values *= inputs**-0.5
                if name.endswith(("o_proj.weight", "down_proj.weight", "experts.down_proj")):
                    values *= 2.5  # what layers add must outweigh the token itself
            elif weight.dim() == 1:
                values = values * 0.1 + (0.0 if name.endswith("bias") else 1.0)
            weight.copy_(values)
        model.tie_weights()


def _save_processor(directory: Path, vision: Any) -> None:
    side = vision.patch_size * vision.spatial_merge_size
    settings = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": vision.patch_size,
        "temporal_patch_size": vision.temporal_patch_size,
        "merge_size": vision.spatial_merge_size,
        "min_pixels": side**2,
        "max_pixels": side**2 * 24,
        "image_mean": [0.5, 0.4, 0.6],
        "image_std": [0.5, 0.3, 0.25],
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(settings), "utf-8")
    limits = {"size": {"shortest_edge": side**2, "longest_edge": side**2 * 24}}
    (directory / "video_preprocessor_config.json").write_text(json.dumps(limits), "utf-8")
