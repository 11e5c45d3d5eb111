"""This file is about reading a vision tower's shape from config.json; no torch."""

from collections.abc import Mapping
from typing import Any

from epidote_engine.model_files import InvalidModel
from epidote_engine.vision.spec import Normalisation, Tower, VisionSpec

# What an absent field means: the defaults of transformers' configuration classes, since
# config.json may leave out fields that have them.
_DEFAULTS: Mapping[Tower, Mapping[str, Any]] = {
    Tower.QWEN2_5: {
        "depth": 32,
        "hidden_size": 3584,
        "hidden_act": "silu",
        "intermediate_size": 3420,
        "num_heads": 16,
        "patch_size": 14,
        "window_size": 112,
        "out_hidden_size": 3584,
        "fullatt_block_indexes": (7, 15, 23, 31),
        "tokens_per_second": 4,
    },
    Tower.QWEN3: {
        "depth": 27,
        "hidden_size": 1152,
        "hidden_act": "gelu_pytorch_tanh",
        "intermediate_size": 4304,
        "num_heads": 16,
        "patch_size": 16,
        "out_hidden_size": 3584,
        "num_position_embeddings": 2304,
        "deepstack_visual_indexes": (8, 16, 24),
    },
}
_SUPPORTED_ACTIVATIONS = ("silu", "gelu", "gelu_pytorch_tanh")


def vision_spec(
    section: Mapping[str, Any], tower: Tower, normalisation: Normalisation
) -> VisionSpec:
    """The tower that config.json's `vision_config` describes.

    Raises:
        InvalidModel: a field has a value that this engine does not know.
    """
    values = {"spatial_merge_size": 2, "temporal_patch_size": 2, **_DEFAULTS[tower]}
    values.update({key: value for key, value in section.items() if value is not None})
    rope = values.get("rope_parameters") or {}
    spec = VisionSpec(
        tower=tower,
        num_layers=int(values["depth"]),
        hidden=int(values["hidden_size"]),
        num_heads=int(values["num_heads"]),
        intermediate=int(values["intermediate_size"]),
        out_hidden=int(values["out_hidden_size"]),
        activation=str(values["hidden_act"]),
        patch=int(values["patch_size"]),
        temporal_patch=int(values["temporal_patch_size"]),
        merge=int(values["spatial_merge_size"]),
        channels=int(values.get("in_channels", values.get("in_chans", 3))),
        rope_theta=float(rope.get("rope_theta", 10000.0)),
        normalisation=normalisation,
        window=int(values.get("window_size", 0)),
        full_attention_layers=tuple(values.get("fullatt_block_indexes", ())),
        tokens_per_second=float(values.get("tokens_per_second", 1.0)),
        num_positions=int(values.get("num_position_embeddings", 0)),
        deepstack_layers=tuple(values.get("deepstack_visual_indexes", ())),
    )
    _check(spec)
    return spec


def _check(spec: VisionSpec) -> None:
    checks = (
        ("hidden_act", spec.activation, spec.activation in _SUPPORTED_ACTIVATIONS),
        ("in_channels", spec.channels, spec.channels == 3),
        ("num_heads", spec.num_heads, spec.hidden % spec.num_heads == 0),
        ("head_dim", spec.head_dim, spec.head_dim % 4 == 0),
        (
            "deepstack_visual_indexes",
            spec.deepstack_layers,
            all(0 <= layer < spec.num_layers for layer in spec.deepstack_layers),
        ),
    )
    for field, value, ok in checks:
        if not ok:
            raise InvalidModel(f"config.json: vision_config.{field} {value!r} is not supported")
