"""A KV cache of one-byte codes in the engine: near the plain one, and the same whatever happens to
blocks: preempted, shared, copied to a peer."""

from typing import Any

import pytest
import torch

from epidote_core.errors import InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve, serve_apart
from epidote_engine.kv_scales import MARGIN
from epidote_engine.pools import KV_CODES, kv_pool, plain_allocate
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model
from epidote_kernels.reference.kv_codes import decoded

# Llama has no norm of its heads, Qwen3-MoE has, and experts
ARCHITECTURES = (Architecture.LLAMA, Architecture.QWEN3_MOE)


@pytest.fixture(scope="module", params=ARCHITECTURES, ids=str)
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("codes") / "tiny"
    save_tiny_model(path, request.param, seed=9)
    return str(path)


def engine_of(model: str, kind: str, role: Role = Role.ALL, **given: Any) -> Engine:
    sizes: dict[str, Any] = {"block_size": 4, "num_kv_blocks": 120, "chunk_tokens": 8}
    return Engine(EngineConfig(model=model, kv_cache_dtype=kind, role=role, **sizes | given))


def requests(num_tokens: int = 12, **fields: Any) -> list[GenerateRequest]:
    sampling = SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True, **fields)
    return [
        GenerateRequest(
            request_id=f"{n}",
            prompt_token_ids=tuple((7 * n + 13 * i) % 251 for i in range(size)),
            sampling=sampling,
        )
        for n, size in enumerate((37, 5, 21))
    ]


def tokens(answers: Any) -> dict[Any, list[int]]:
    return {key: answer.token_ids for key, answer in answers.items()}


@pytest.mark.parametrize("kind", KV_CODES)
def test_what_is_filed_is_what_the_plain_cache_holds_to_a_code(model: str, kind: str) -> None:
    plain, coded = (engine_of(model, k, prefix_caching=False) for k in ("auto", kind))
    work = requests(1)[:1]
    for engine in (plain, coded):
        serve(engine, work)
    want, codes = plain.kv_pool.tensor[0], coded.kv_pool.tensor[0]  # no layer before it
    attention = coded._parts.runner.model.layers[0].attention
    assert want.any()
    for number, scale in enumerate((attention.k_scale, attention.v_scale)):
        got = decoded(codes[number], scale, torch.float32)
        step = scale[:, None]  # per head
        # e4m3 has three bits behind the leading one, and places of 2 ** -9 at its low end
        room = step / 2 if kind == "int8" else torch.maximum(want[number].abs() / 16, step / 1024)
        most = torch.finfo(torch.float32).eps * 100
        assert ((got - want[number]).abs() <= room * (1 + 1e-4) + most).all()
        assert (got != want[number]).any()


@pytest.mark.parametrize(("kind", "most"), [("int8", 0.1), ("fp8", 0.3)])
def test_logprobs_are_near_those_of_the_plain_cache(model: str, kind: str, most: float) -> None:
    """The measure: mean difference of the first token's best log-probabilities, in nats."""
    work = requests(1, logprobs=5)
    told = [serve(engine_of(model, k), work) for k in ("auto", kind)]
    differences = []
    for request in work:
        plain, coded = (dict(t[request.request_id, 0].logprobs[0].top) for t in told)
        common = plain.keys() & coded.keys()
        assert len(common) >= 3
        differences += [abs(plain[token] - coded[token]) for token in common]
    print(f"{kind}: {sum(differences) / len(differences):.4f} nats")
    assert 0 < sum(differences) / len(differences) < most


@pytest.mark.parametrize("kind", KV_CODES)
def test_preempted_shared_padded_or_copied_blocks_change_nothing(model: str, kind: str) -> None:
    work = requests()
    want = tokens(serve(engine_of(model, kind), work))
    crowded = engine_of(model, kind, num_kv_blocks=20, prefix_caching=False)
    assert tokens(serve(crowded, work)) == want
    assert crowded.load().num_preemptions > 0
    again = engine_of(model, kind)
    serve(again, work)
    answers = serve(again, work)
    assert tokens(answers) == want
    assert answers["0", 0].num_cached_tokens >= 32
    assert tokens(serve(engine_of(model, kind, static_shapes=True, warm_up=True), work)) == want
    prefill, decode = (engine_of(model, kind, role) for role in (Role.PREFILL, Role.DECODE))
    assert tokens(serve_apart(prefill, decode, work)) == want
    for engine in (crowded, again, prefill, decode):
        assert engine.conservation_errors() == []


@pytest.mark.parametrize("kind", KV_CODES)
def test_a_peer_of_the_same_model_measures_the_same_scales(model: str, kind: str) -> None:
    one, other = (engine_of(model, kind, warm_up=w, static_shapes=w) for w in (False, True))
    for mine, theirs in zip(
        one._parts.runner.model.layers, other._parts.runner.model.layers, strict=True
    ):
        for name in ("k_scale", "v_scale"):
            scale = getattr(mine.attention, name)
            assert (scale > 0).all()
            assert scale.equal(getattr(theirs.attention, name))
    assert set(MARGIN) == set(KV_CODES.values())


def test_the_same_memory_holds_four_times_the_blocks_of_float32(model: str) -> None:
    decoder = load_model_spec(model).decoder
    blocks = {}
    for kind in ("auto", *KV_CODES):
        config = EngineConfig(model=model, kv_cache_dtype=kind, memory_utilization=0.001)
        pool = kv_pool(config, decoder, torch.float32, plain_allocate)
        assert pool.has_codes is (kind != "auto")
        blocks[kind] = pool.num_blocks
    assert blocks["int8"] == blocks["fp8"]
    assert blocks["int8"] // 4 == blocks["auto"]


def test_another_kind_is_refused_by_name() -> None:
    with pytest.raises(InvalidRequest, match="kv_cache_dtype: cannot be 'int4'"):
        EngineConfig(model="none", kv_cache_dtype="int4")
