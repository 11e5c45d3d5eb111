"""This file is about reading a language model's shape from config.json, old spelling and new.

transformers 5 writes `rope_parameters` and nests `text_config`; transformers 4 wrote `rope_theta`
and `rope_scaling`, and Qwen2.5-VL's checkpoints of that time keep the language model's fields at
the top. No torch here: the result is plain values.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from epidote_engine.expert_spec import expert_spec
from epidote_engine.model_files import InvalidModel


class Architecture(StrEnum):
    """What config.json's `architectures` may say."""

    LLAMA = "LlamaForCausalLM"
    QWEN2 = "Qwen2ForCausalLM"
    QWEN3 = "Qwen3ForCausalLM"
    QWEN2_5_VL = "Qwen2_5_VLForConditionalGeneration"
    QWEN3_VL = "Qwen3VLForConditionalGeneration"
    QWEN3_MOE = "Qwen3MoeForCausalLM"
    QWEN3_VL_MOE = "Qwen3VLMoeForConditionalGeneration"

    @property
    def has_vision(self) -> bool:
        return self.value.endswith("ForConditionalGeneration")

    @property
    def has_experts(self) -> bool:
        return self in (Architecture.QWEN3_MOE, Architecture.QWEN3_VL_MOE)

    @property
    def is_qwen3(self) -> bool:
        """Qwen3's attention: normed heads of a size of their own."""
        return self.value.startswith("Qwen3")


# What an absent field means: the defaults of transformers' configuration classes.
_DEFAULTS: Mapping[Architecture, Mapping[str, Any]] = {
    Architecture.LLAMA: {
        "vocab_size": 32000,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 2048,
    },
    Architecture.QWEN2: {
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 32768,
    },
    Architecture.QWEN3: {
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 32768,
        "head_dim": 128,
    },
    Architecture.QWEN2_5_VL: {
        "vocab_size": 152064,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "max_position_embeddings": 32768,
    },
    Architecture.QWEN3_VL: {
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e5,
        "max_position_embeddings": 128000,
        "head_dim": 128,
    },
    Architecture.QWEN3_MOE: {
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e4,
        "max_position_embeddings": 32768,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "moe_intermediate_size": 768,
        "norm_topk_prob": False,
        "decoder_sparse_step": 1,
    },
    Architecture.QWEN3_VL_MOE: {
        "vocab_size": 151936,
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e5,
        "max_position_embeddings": 128000,
        "num_experts": 60,
        "num_experts_per_tok": 4,
        "moe_intermediate_size": 1408,
        "decoder_sparse_step": 1,
    },
}
_MROPE_FALLBACK = {
    Architecture.QWEN2_5_VL: (16, 24, 24),
    Architecture.QWEN3_VL: (24, 20, 20),
    Architecture.QWEN3_VL_MOE: (24, 20, 20),
}
_REQUIRED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")


def text_section(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """The language model's fields: nested under `text_config`, or the whole file."""
    nested = config.get("text_config")
    return nested if isinstance(nested, dict) else config


def text_values(config: Mapping[str, Any], architecture: Architecture) -> dict[str, Any]:
    """The language model's fields with one spelling each and no gaps.

    Keys are config.json's own, plus `rope` (rope_type, rope_theta, and the type's own fields),
    `mrope_section`, `experts` (ExpertSpec or None) and `tie_word_embeddings` (which may stand in
    either section).

    Raises:
        InvalidModel: a field is missing or asks for what this engine does not do.
    """
    section = text_section(config)
    values = dict(_DEFAULTS[architecture])
    values.update({key: value for key, value in section.items() if value is not None})
    if missing := [name for name in _REQUIRED if name not in values]:
        raise InvalidModel(f"config.json: {', '.join(missing)} missing")
    heads = int(values["num_attention_heads"])
    values.setdefault("num_key_value_heads", heads)
    if architecture is Architecture.QWEN2_5_VL:
        values["head_dim"] = int(values["hidden_size"]) // heads  # the reference reads no other
    values.setdefault("head_dim", int(values["hidden_size"]) // heads)
    values["rope"] = _rope(values)
    values["mrope_section"] = tuple(values["rope"].pop("mrope_section", None) or ())
    if architecture.has_vision and not values["mrope_section"]:
        values["mrope_section"] = _MROPE_FALLBACK[architecture]
    values["tie_word_embeddings"] = bool(
        config.get("tie_word_embeddings") or section.get("tie_word_embeddings")
    )
    if architecture is Architecture.QWEN3_VL_MOE:
        values["norm_topk_prob"] = True  # its router always does, whatever the file says
        # the section's default is to tie and says nothing; the reference reads the outer field
        values["tie_word_embeddings"] = bool(config.get("tie_word_embeddings"))
    values["experts"] = expert_spec(values) if architecture.has_experts else None
    _check(values, architecture)
    return values


def _rope(values: Mapping[str, Any]) -> dict[str, Any]:
    """{rope_type, rope_theta, …} from `rope_parameters`, or `rope_scaling` and `rope_theta`."""
    rope = dict(values.get("rope_scaling") or values.get("rope_parameters") or {})
    rope.setdefault("rope_theta", values["rope_theta"])
    kind = rope.pop("type", None)
    kind = rope.pop("rope_type", kind) or "default"
    rope["rope_type"] = "default" if kind == "mrope" else kind  # sections say the rest
    return rope


def _check(values: Mapping[str, Any], architecture: Architecture) -> None:
    heads, kv_heads = int(values["num_attention_heads"]), int(values["num_key_value_heads"])
    layer_types = values.get("layer_types") or ()
    slides = values.get("use_sliding_window") and any("sliding" in kind for kind in layer_types)
    section = values["mrope_section"]
    checks = (
        (
            "hidden_act",
            values.get("hidden_act", "silu"),
            values.get("hidden_act", "silu") == "silu",
        ),
        ("num_key_value_heads", kv_heads, heads % kv_heads == 0),
        ("head_dim", values["head_dim"], int(values["head_dim"]) % 2 == 0),
        ("use_sliding_window", values.get("use_sliding_window"), not slides),
        ("mlp_bias", values.get("mlp_bias"), not values.get("mlp_bias")),
        (
            "rope_parameters.mrope_section",
            section,
            not architecture.has_vision
            or (len(section) == 3 and 2 * sum(section) >= int(values["head_dim"])),
        ),
    )
    for field, value, ok in checks:
        if not ok:
            raise InvalidModel(f"config.json: {field} {value!r} is not supported")
