"""The engine against transformers: fresh random weights and prompts, token for token."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from epidote_core.generation import Choice, GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.answers import check_greedy
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve, serve_apart
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model

NUM_TOKENS = 14
VOCAB = 256


def are_near(logits: torch.Tensor, count: int) -> bool:
    """Whether in some row the last of the `count` largest hardly differs from the next."""
    last, following = logits.topk(count + 1).values[:, -2:].unbind(1)
    return bool((last - following < 1e-5 * logits.abs().amax(1)).any())


@dataclass
class Model:
    path: str
    reference: Any
    native: bool  # whether decode steps are compiled

    def expected(self, prompt: tuple[int, ...], num_tokens: int = NUM_TOKENS) -> list[int]:
        ids = torch.tensor([prompt])
        with torch.no_grad():
            out = self.reference.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=num_tokens,
                do_sample=False,
                pad_token_id=0,
            )
        return out[0, len(prompt) :].tolist()

    def is_tied(self, prompt: tuple[int, ...], token: int) -> bool:
        """Whether transformers itself can't tell `token` after `prompt` from its best, or two
        experts somewhere in `prompt`, of which it asks one: their logits differ by less than 1e-5
        of the logits' scale. The only tolerance there is."""
        config = self.reference.config
        routed = {"output_router_logits": True} if getattr(config, "num_experts", 0) else {}
        with torch.no_grad():
            out = self.reference(torch.tensor([prompt]), **routed)
        logits = out.logits[0, -1]
        experts = out.router_logits if routed else ()
        return bool(logits.max() - logits[token] < 1e-5 * logits.abs().max()) or any(
            are_near(logits, config.num_experts_per_tok) for logits in experts
        )

    def check(self, prompt: tuple[int, ...], tokens: list[int]) -> None:
        """`tokens` are what transformers generates; after a tie, what it goes on with from ours."""
        assert len(tokens) == NUM_TOKENS
        check_greedy(
            tokens,
            lambda answer: self.expected((*prompt, *answer), NUM_TOKENS - len(answer)),
            lambda answer, token: self.is_tied((*prompt, *answer), token),
        )

    def engine(self, role: Role = Role.ALL, **given: Any) -> Engine:
        values = {"dtype": "float32", "num_kv_blocks": 80, "block_size": 4} | given
        values.setdefault("native_decode", self.native)
        return Engine(EngineConfig(model=self.path, role=role, **values))


TEXT = [a for a in Architecture if not a.has_vision]


@pytest.fixture(scope="module", params=[(a, s) for a in TEXT for s in (5, 6)], ids=str)
def model(request, tmp_path_factory):
    architecture, seed = request.param
    path = tmp_path_factory.mktemp("text") / "model"
    reference = save_tiny_model(path, architecture, seed)
    reference.generation_config.eos_token_id = None
    return Model(str(path), reference, native=seed == 5)


def request(name: str, prompt, num_tokens: int = NUM_TOKENS, **fields: Any) -> GenerateRequest:
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=tuple(prompt),
        sampling=SamplingParams(max_tokens=num_tokens, temperature=0.0, ignore_eos=True),
        **fields,
    )


def checked(model: Model, engine: Engine, prompts, answers) -> None:
    for number, prompt in enumerate(prompts):
        model.check(tuple(prompt), answers[f"{number}", 0].token_ids)
    assert engine.conservation_errors() == []
    assert engine.is_drained()


# no shrinking: each example takes long, and none is hard to read
few = settings(
    max_examples=6,
    suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
a_prompt = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=45)
some_prompts = st.lists(a_prompt, min_size=1, max_size=7)


@few
@given(
    prompts=some_prompts,
    chunk=st.sampled_from((1, 4, 7, 64)),
    budget=st.sampled_from((8, 33, 256)),
    static=st.booleans(),
)
def test_any_batch_in_chunks_of_any_size(model, prompts, chunk, budget, static):
    engine = model.engine(
        chunk_tokens=chunk, max_batched_tokens=budget, max_num_seqs=5, static_shapes=static
    )
    answers = serve(engine, [request(f"{i}", p) for i, p in enumerate(prompts)])
    checked(model, engine, prompts, answers)


@few
@given(prompts=some_prompts, shared=a_prompt)
def test_prefix_hits_change_nothing(model, prompts, shared):
    engine = model.engine(num_kv_blocks=200)
    prompts = [[*shared, *prompt] for prompt in prompts]
    serve(engine, [request("warm", shared)])
    answers = serve(engine, [request(f"{i}", p) for i, p in enumerate(prompts)])
    checked(model, engine, prompts, answers)
    if len(shared) >= 4:
        assert all(answers[f"{i}", 0].num_cached_tokens >= 4 for i in range(len(prompts)))


@few
@given(prompts=some_prompts, spare=st.integers(0, 6), prefix_caching=st.booleans())
def test_a_pool_that_is_too_small_preempts_and_changes_nothing(
    model, prompts, spare, prefix_caching
):
    longest = max(map(len, prompts)) + NUM_TOKENS
    engine = model.engine(
        num_kv_blocks=-(-longest // 4) + spare, chunk_tokens=8, prefix_caching=prefix_caching
    )
    answers = serve(engine, [request(f"{i}", p) for i, p in enumerate(prompts)])
    checked(model, engine, prompts, answers)


@few
@given(
    prompts=some_prompts,
    chunk=st.sampled_from((1, 5, 64)),
    blocks=st.sampled_from((16, 30, 80)),
    warm=st.booleans(),
)
def test_prefill_here_and_decode_there(model, prompts, chunk, blocks, warm):
    prefill = model.engine(Role.PREFILL, chunk_tokens=chunk)
    decode = model.engine(Role.DECODE, num_kv_blocks=blocks)
    if warm:
        serve(decode, [request("warm", prompts[0], 3)])
        serve(prefill, [request("warm", prompts[-1], 3)])
    answers = serve_apart(prefill, decode, [request(f"{i}", p) for i, p in enumerate(prompts)])
    checked(model, decode, prompts, answers)
    assert prefill.conservation_errors() == []
    assert prefill.is_drained()


@few
@given(prompt=a_prompt, cuts=st.lists(st.integers(0, NUM_TOKENS - 1), min_size=1, max_size=3),
       apart=st.booleans())  # fmt: skip
def test_resumed_choices_go_on_where_they_were(model, prompt, cuts, apart):
    expected = model.expected(tuple(prompt))
    choices = tuple(
        Choice(index=i, emitted_token_ids=tuple(expected[:cut])) for i, cut in enumerate(cuts)
    )
    work = [request("r", prompt, choices=choices)]
    decode = model.engine(num_kv_blocks=64)
    answers = serve_apart(model.engine(), decode, work) if apart else serve(decode, work)
    for choice in choices:
        tokens = [*choice.emitted_token_ids, *answers["r", choice.index].token_ids]
        model.check(tuple(prompt), tokens)
        assert len(tokens) == NUM_TOKENS
    assert decode.conservation_errors() == []
    assert decode.is_drained()


def test_all_three_rope_stretches_equal_transformers(tmp_path):
    import transformers

    for number, rope in enumerate(
        (
            {"rope_type": "linear", "factor": 3.0},
            {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
             "original_max_position_embeddings": 64},
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
        )
    ):  # fmt: skip
        config = transformers.LlamaConfig(
            vocab_size=300, hidden_size=64, intermediate_size=96, num_hidden_layers=2,
            num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=256,
            rope_parameters={"rope_theta": 1e4, **rope}, initializer_range=0.2,
        )  # fmt: skip
        reference = transformers.LlamaForCausalLM(config).eval()
        path = tmp_path / f"{number}"
        reference.save_pretrained(path)
        reference.generation_config.eos_token_id = None
        model = Model(str(path), reference, native=number != 1)
        prompt = tuple(range(1, 100))
        answers = serve(model.engine(), [request("0", prompt)])
        model.check(prompt, answers["0", 0].token_ids)
