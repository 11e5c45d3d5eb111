"""A mixture of experts in the engine: what is counted, and what is refused. Tokens equal to
transformers' are the equality tests' business, which go over every architecture."""

from typing import Any

import pytest

from epidote_core.errors import InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.expert_spec import ExpertSpec, expert_spec
from epidote_engine.in_process import serve
from epidote_engine.layers.mlp import Experts
from epidote_engine.model_files import InvalidModel
from epidote_engine.models.decoder import DecoderConfig
from epidote_engine.parallel.shards import Shards
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

FIELDS = {
    "num_hidden_layers": 5, "num_experts": 8, "num_experts_per_tok": 2, "norm_topk_prob": True,
    "moe_intermediate_size": 24, "decoder_sparse_step": 1, "mlp_only_layers": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("experts") / "tiny"
    save_tiny_model(path, Architecture.QWEN3_MOE, seed=4)
    return str(path)


@pytest.mark.parametrize(
    ("fields", "layers"),
    [
        ({}, (0, 1, 2, 3, 4)),
        ({"mlp_only_layers": [0, 3]}, (1, 2, 4)),
        ({"decoder_sparse_step": 2}, (1, 3)),
        ({"decoder_sparse_step": 2, "mlp_only_layers": [1]}, (3,)),
    ],
)
def test_layers_with_experts(fields: dict[str, Any], layers: tuple[int, ...]) -> None:
    spec = expert_spec(FIELDS | fields)
    assert spec is not None
    assert spec.layers == layers


@pytest.mark.parametrize("fields", [{"num_experts": 0}, {"mlp_only_layers": [0, 1, 2, 3, 4]}])
def test_a_model_whose_layers_are_all_dense(fields: dict[str, Any]) -> None:
    assert expert_spec(FIELDS | fields) is None


@pytest.mark.parametrize(
    ("field", "value"), [("num_experts_per_tok", 9), ("decoder_sparse_step", 0)]
)
def test_what_contradicts_itself_is_refused(field: str, value: int) -> None:
    with pytest.raises(InvalidModel, match=f"config.json: {field} must be"):
        expert_spec(FIELDS | {field: value})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("static", [False, True])
def test_every_computed_token_is_counted_once_per_layer_and_padding_never(
    model: str, dtype: str, static: bool
) -> None:
    config = EngineConfig(
        model=model, dtype=dtype, num_kv_blocks=60, static_shapes=static, warm_up=static,
        count_expert_tokens=True, prefix_caching=False, chunk_tokens=8,
    )  # fmt: skip
    engine = Engine(config)
    prompts, outputs = (3, 11, 20), 5
    requests = [
        GenerateRequest(
            request_id=f"{size}",
            prompt_token_ids=tuple(range(size)),
            sampling=SamplingParams(max_tokens=outputs, temperature=0.0, ignore_eos=True),
        )
        for size in prompts
    ]
    before = engine.expert_tokens()
    assert before is not None
    assert not any(map(sum, before))
    serve(engine, requests)
    counts = engine.expert_tokens()
    assert counts is not None
    spec = load_model_spec(model)
    experts: ExpertSpec = spec.text["experts"]
    assert len(counts) == len(experts.layers)
    computed = sum(prompts) + len(prompts) * (outputs - 1)  # the last token is never read
    for layer, loads in zip(experts.layers, counts, strict=True):
        assert len(loads) == experts.num_experts
        if layer < spec.decoder.num_layers - 1:
            assert sum(loads) == experts.per_token * computed
        else:  # of a prompt, only the token that is sampled from
            assert sum(loads) == experts.per_token * len(prompts) * outputs


def test_nothing_is_counted_unless_asked_for(model: str) -> None:
    assert Engine(EngineConfig(model=model, num_kv_blocks=9)).expert_tokens() is None
    encoder = EngineConfig(model=model, num_kv_blocks=9, role=Role.ENCODE, count_expert_tokens=True)
    assert Engine(encoder).expert_tokens() is None


def test_experts_in_8_bits_are_half_the_bytes_and_near_the_originals(model: str) -> None:
    request = GenerateRequest(
        request_id="a",
        prompt_token_ids=tuple(range(9)),
        sampling=SamplingParams(max_tokens=1, temperature=0.0, logprobs=1),
    )
    told, sizes = [], []
    for quantization in (None, "int8", "fp8"):
        engine = Engine(
            EngineConfig(model=model, dtype="float16", num_kv_blocks=9, quantization=quantization)
        )
        assert engine._parts.runner is not None
        mlps = [layer.mlp for layer in engine._parts.runner.model.layers]
        sizes.append(sum(mlp.down.nbytes for mlp in mlps if isinstance(mlp, Experts)))
        told.append(serve(engine, [request])["a", 0].logprobs[0].top[0][1])
    assert 0 < sizes[1] == sizes[2] == sizes[0] // 2
    assert told[1] == pytest.approx(told[0], abs=0.3)
    assert told[2] == pytest.approx(told[0], abs=0.6)
    assert told[1] != told[0] != told[2]


def test_experts_that_cannot_be_cut_are_refused() -> None:
    shards = Shards.alone()
    shards.size = 2
    experts = ExpertSpec(num_experts=4, per_token=2, intermediate=9, renormalises=True, layers=(0,))
    config = DecoderConfig(
        num_layers=1, hidden=8, num_heads=4, num_kv_heads=2, head_dim=2, intermediate=8, vocab=9,
        experts=experts,
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="over 2: moe_intermediate_size 9 can't be cut"):
        shards.own(config)
