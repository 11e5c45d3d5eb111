"""This file is about models of real shapes without a checkpoint: a directory, weights at random."""

import json
from pathlib import Path
from typing import Any

from epidote_engine.tiny_models import IDS, save_tokenizer

# config.json of Qwen3-8B, Qwen3-30B-A3B and Qwen3-VL-8B, as published; the toy's are only small
TEXT_8B = {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
}
# of Qwen3-30B-A3B, as published but for its 48 layers: time grows with them evenly
EXPERTS_30B = {
    "hidden_size": 2048,
    "intermediate_size": 6144,
    "num_hidden_layers": 8,
    "num_attention_heads": 32,
    "num_key_value_heads": 4,
    "head_dim": 128,
    "vocab_size": 151936,
    "max_position_embeddings": 40960,
    "num_experts": 128,
    "num_experts_per_tok": 8,
    "moe_intermediate_size": 768,
    "norm_topk_prob": True,
}
EXPERTS_TOY = {
    **{"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "norm_topk_prob": True,
}
VISION_8B = {
    "depth": 27,
    "hidden_size": 1152,
    "num_heads": 16,
    "intermediate_size": 4304,
    "num_position_embeddings": 2304,
    "deepstack_visual_indexes": [8, 16, 24],
}
TEXT_TOY = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "vocab_size": 300,
    "max_position_embeddings": 2048,
}
VISION_TOY = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "intermediate_size": 48,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
_ROPE = {"rope_type": "default", "rope_theta": 1e6}


def text_config(*, toy: bool, num_layers: int | None = None) -> dict[str, Any]:
    """Fields of a Qwen3's config.json."""
    fields: dict[str, Any] = dict(TEXT_TOY if toy else TEXT_8B)
    if num_layers is not None:
        fields["num_hidden_layers"] = num_layers
    ids = {"eos_token_id": IDS["<|im_end|>"], "bos_token_id": None, "pad_token_id": 0}
    return {**fields, **ids, "rms_norm_eps": 1e-6, "tie_word_embeddings": False}


def save_text_model(directory: Path, *, toy: bool, num_layers: int | None = None) -> str:
    """An 8-billion dense text model's directory without weights; its path."""
    config = text_config(toy=toy, num_layers=num_layers)
    _save(
        directory,
        {**config, "architectures": ["Qwen3ForCausalLM"], "rope_parameters": _ROPE,
         "model_type": "qwen3", "dtype": "float32" if toy else "bfloat16"},
    )  # fmt: skip
    return str(directory)


def save_expert_model(directory: Path, *, toy: bool) -> str:
    """The same with experts in every layer."""
    fields = text_config(toy=toy) | (EXPERTS_TOY if toy else EXPERTS_30B)
    _save(
        directory,
        {**fields, "architectures": ["Qwen3MoeForCausalLM"], "rope_parameters": _ROPE,
         "model_type": "qwen3_moe", "dtype": "float32" if toy else "bfloat16"},
    )  # fmt: skip
    return str(directory)


def save_vision_model(directory: Path, *, toy: bool, num_layers: int | None = None) -> str:
    """The same with a vision tower."""
    text = text_config(toy=toy, num_layers=num_layers)
    half = text["head_dim"] // 2
    sections = [half - 2 * (half // 3), half // 3, half // 3]
    text["rope_parameters"] = {**_ROPE, "mrope_section": sections, "mrope_interleaved": True}
    vision = dict(VISION_TOY if toy else VISION_8B)
    vision |= {"out_hidden_size": text["hidden_size"], "patch_size": 16,
               "spatial_merge_size": 2, "temporal_patch_size": 2}  # fmt: skip
    _save(
        directory,
        {
            "architectures": ["Qwen3VLForConditionalGeneration"],
            "model_type": "qwen3_vl",
            "text_config": text,
            "vision_config": vision,
            "image_token_id": IDS["<|image_pad|>"],
            "video_token_id": IDS["<|video_pad|>"],
            "vision_start_token_id": IDS["<|vision_start|>"],
            "vision_end_token_id": IDS["<|vision_end|>"],
            "tie_word_embeddings": False,
            "dtype": "float32" if toy else "bfloat16",
        },
    )
    pixels = {"min_pixels": 32 * 32, "max_pixels": 32 * 32 * (16 if toy else 1280)}
    settings = {"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 16,
                "temporal_patch_size": 2, "merge_size": 2, **pixels}  # fmt: skip
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    return str(directory)


def _save(directory: Path, config: dict[str, Any]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    save_tokenizer(directory)
    (directory / "config.json").write_text(json.dumps(config, indent=1))
