"""Reading weights from what `save_pretrained` writes, and from older names for the same."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from epidote_engine.config import load_model_spec
from epidote_engine.model_files import InvalidModel
from epidote_engine.parallel.shards import Shards
from epidote_engine.parallel.weights import ShardedWeights
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_engine.weight_store import Part, WeightStore
from epidote_engine.weights import Checkpoint, language_weights, vision_weights

VISION = [a for a in Architecture if a.has_vision]
CPU32 = {"dtype": torch.float32, "device": "cpu"}


def rewrite(directory, rename):
    """Rename (None: drop) every tensor of a directory's one file."""
    stored = load_file(directory / "model.safetensors")
    renamed = {rename(name): tensor for name, tensor in stored.items()}
    renamed.pop(None, None)
    save_file(renamed, directory / "model.safetensors")


@pytest.mark.parametrize("architecture", Architecture)
def test_every_tensor_of_the_language_model_arrives(tmp_path, architecture):
    model = save_tiny_model(tmp_path, architecture, seed=5)
    weights = language_weights(load_model_spec(str(tmp_path)), **CPU32)
    inner = model.model.language_model if architecture.has_vision else model.model
    expected = dict(inner.named_parameters())
    for name in [name for name in expected if ".experts." in name]:  # transformers packs them
        at, _, part = name.rpartition(".")
        for number, tensor in enumerate(expected.pop(name)):
            parts = {"down": tensor}
            if part == "gate_up_proj":
                parts = dict(zip(("gate", "up"), tensor.chunk(2), strict=True))
            for which, one in parts.items():
                expected[f"{at}.{number}.{which}_proj.weight"] = one
    if not model.config.tie_word_embeddings:
        expected["lm_head.weight"] = model.lm_head.weight
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("transposed", [False, True])
def test_experts_arrive_from_either_packed_layout(tmp_path, transposed):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL_MOE, seed=5)
    spec = load_model_spec(str(tmp_path))
    wanted = language_weights(spec, **CPU32)
    stored = load_file(tmp_path / "model.safetensors")
    packed = {name for name in stored if ".experts." in name}
    assert packed  # as transformers saves this architecture
    if transposed:  # as it was published
        for name in packed:
            stored[name] = stored[name].transpose(1, 2).contiguous()
        save_file(stored, tmp_path / "model.safetensors")
    found = language_weights(spec, **CPU32)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    lazily = ShardedWeights(spec, Shards.alone(), device="cpu")
    assert all(torch.equal(lazily[name], wanted[name]) for name in wanted)


def test_packed_experts_of_a_wrong_shape_are_named(tmp_path):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL_MOE, seed=5)
    stored = load_file(tmp_path / "model.safetensors")
    name = next(name for name in stored if name.endswith("experts.down_proj"))
    stored[name] = stored[name][:, 1:].contiguous()
    save_file(stored, tmp_path / "model.safetensors")
    with pytest.raises(InvalidModel, match=r"experts.down_proj' have shapes"):
        language_weights(load_model_spec(str(tmp_path)), **CPU32)


@pytest.mark.parametrize("architecture", VISION)
def test_every_tensor_of_the_vision_tower_arrives(tmp_path, architecture):
    model = save_tiny_model(tmp_path, architecture, seed=5)
    weights = vision_weights(load_model_spec(str(tmp_path)), **CPU32)
    expected = dict(model.model.visual.named_parameters())
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


@pytest.mark.parametrize("architecture", VISION)
@pytest.mark.parametrize(
    "old",
    [
        {"model.language_model.": "model.", "model.visual.": "visual."},
        {"model.language_model.": "language_model.model.", "lm_head.": "language_model.lm_head."},
    ],
)
def test_older_names_mean_the_same(tmp_path, architecture, old):
    save_tiny_model(tmp_path, architecture, seed=6)
    spec = load_model_spec(str(tmp_path))
    now = language_weights(spec, **CPU32) | vision_weights(spec, **CPU32)
    now = {name: tensor.clone() for name, tensor in now.items()}  # off the file that changes

    def rename(name):
        for new, older in old.items():
            if name.startswith(new):
                return older + name.removeprefix(new)
        return name

    rewrite(tmp_path, rename)
    then = language_weights(spec, **CPU32) | vision_weights(spec, **CPU32)
    assert then.keys() == now.keys()
    assert all(torch.equal(then[name], now[name]) for name in now)


@pytest.mark.parametrize("architecture", VISION)
def test_shards_are_read_as_one_and_only_where_needed(tmp_path, architecture):
    save_tiny_model(tmp_path / "one", architecture, seed=7)
    save_tiny_model(tmp_path / "many", architecture, seed=7, max_shard_size="60KB")
    one, many = (load_model_spec(str(tmp_path / name)) for name in ("one", "many"))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    for read in (language_weights, vision_weights):
        left, right = read(one, **CPU32), read(many, **CPU32)
        assert all(torch.equal(left[name], right[name]) for name in left)
    # an encode worker must not touch shards that hold the language model alone
    files = index["weight_map"].items()
    needed = {file for name, file in files if "visual" in name}
    for file in {file for _, file in files} - needed:
        (tmp_path / "many" / file).write_bytes(b"")
    vision_weights(many, **CPU32)


def test_a_file_of_the_right_type_is_mapped_not_copied(tmp_path):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, seed=8)
    spec = load_model_spec(str(tmp_path))
    path = str(tmp_path / "model.safetensors")
    held = vision_weights(spec, **CPU32)
    with open("/proc/self/maps") as maps:
        assert path in maps.read()
    assert held["merger.linear_fc1.weight"].dtype is torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_weights_come_in_the_dtype_that_was_asked_for(tmp_path, dtype, stored):
    model = save_tiny_model(tmp_path, Architecture.QWEN2_5_VL, seed=9, dtype=stored)
    spec = load_model_spec(str(tmp_path))
    assert spec.dtype == str(stored).removeprefix("torch.")
    for read, owner in (
        (language_weights, model.model.language_model),
        (vision_weights, model.model.visual),
    ):
        loaded, expected = read(spec, dtype=dtype, device="cpu"), dict(owner.named_parameters())
        for name, tensor in loaded.items():
            assert tensor.dtype is dtype
            if name in expected:
                assert torch.equal(tensor, expected[name].to(dtype))


def test_a_repeated_head_of_a_tied_model_is_ignored(tmp_path):
    seed = next(s for s in range(50) if _tied(tmp_path / str(s), s))
    directory = tmp_path / str(seed)
    stored = load_file(directory / "model.safetensors")
    stored["lm_head.weight"] = stored["model.embed_tokens.weight"].clone()
    stored["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    save_file(stored, directory / "model.safetensors")
    assert "lm_head.weight" not in language_weights(load_model_spec(str(directory)), **CPU32)


def _tied(directory, seed):
    return save_tiny_model(directory, Architecture.LLAMA, seed).config.tie_word_embeddings


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("weights") / "model"
    save_tiny_model(directory, Architecture.QWEN3_VL, seed=10)
    return directory


@pytest.mark.parametrize(
    ("read", "tensor"),
    [
        (language_weights, "model.language_model.layers.1.mlp.up_proj.weight"),
        (vision_weights, "model.visual.blocks.2.attn.qkv.bias"),
    ],
)
def test_a_wrong_tensor_is_named(saved, tmp_path, read, tensor):
    plain = tensor.removeprefix("model.language_model.").removeprefix("model.visual.")
    for change, said in (
        (lambda t: t.pop(tensor), f"missing tensors: {plain}"),
        (lambda t: t.update({tensor: t[tensor][1:].clone()}), f"{tensor}.*has shape"),
        (lambda t: t.update({f"{tensor}2": torch.ones(1)}), f"unexpected tensors: {tensor}2"),
    ):
        shutil.copytree(saved, tmp_path / "copy", dirs_exist_ok=True)
        stored = load_file(saved / "model.safetensors")
        change(stored)
        save_file(stored, tmp_path / "copy" / "model.safetensors")
        with pytest.raises(InvalidModel, match=said):
            read(load_model_spec(str(tmp_path / "copy")), **CPU32)


def test_files_that_are_absent_or_broken_are_named(saved, tmp_path):
    with pytest.raises(InvalidModel, match=r"neither model\.safetensors"):
        Checkpoint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not safetensors")
    with pytest.raises(InvalidModel, match="not a readable safetensors file"):
        Checkpoint(tmp_path)
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InvalidModel, match=r"00001.*absent"):
        Checkpoint(tmp_path)


def test_a_store_releases_and_loads_again(saved):
    store = WeightStore(load_model_spec(str(saved)), Part.VISION, **CPU32)
    first = {name: tensor.clone() for name, tensor in store.load().items()}
    assert store.is_loaded
    assert store.load() is store.load()
    store.release()
    assert not store.is_loaded
    again = store.load()
    assert all(torch.equal(again[name], first[name]) for name in first)


def test_a_text_model_has_no_vision_weights(tmp_path):
    save_tiny_model(tmp_path, Architecture.LLAMA, seed=1)
    with pytest.raises(InvalidModel, match="no vision tower"):
        vision_weights(load_model_spec(str(tmp_path)), **CPU32)
