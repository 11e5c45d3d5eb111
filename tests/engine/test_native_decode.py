"""The compiled decode step against the general pass, and what becomes of it without a compiler."""

import logging
import shlex
import shutil
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_core.generation import Choice, GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.layers.quantized_linear import QuantizedLinear
from epidote_engine.models import native_decode
from epidote_engine.models.cpu_decode import CpuDecode
from epidote_engine.models.decoder import DecoderConfig, DecoderLM
from epidote_engine.models.native_decode import NativeDecode
from epidote_engine.native import build
from epidote_engine.rows import BatchRows
from epidote_engine.runner import Runner
from epidote_engine.sequence import Mode, Sequence
from epidote_engine.step_buffers import StepBuffers
from epidote_engine.user_cache import cache_directory

COMPILER = next(filter(shutil.which, ("cc", "gcc", "clang")), None)
needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
VECTORS_OF_8 = f"{COMPILER} -mno-avx512f"  # what most laptops have


def model_of(seed: int, **given) -> DecoderLM:
    """Random weights of a config with odd sizes."""
    sizes = {
        "num_layers": 2, "hidden": 40, "num_heads": 6, "num_kv_heads": 2, "head_dim": 32,
        "intermediate": 72, "vocab": 101, "max_positions": 200,
    }  # fmt: skip
    config = DecoderConfig(**sizes | given)
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * (shape[-1] ** -0.5 if shape[1:] else 1)

    heads, kv_heads = (n * config.head_dim for n in (config.num_heads, config.num_kv_heads))
    weights = {
        "embed_tokens.weight": drawn(config.vocab, config.hidden) * 5,
        "norm.weight": drawn(config.hidden),
    }
    if not config.tie_embeddings:
        weights["lm_head.weight"] = drawn(config.vocab, config.hidden)
    for at in (f"layers.{index}" for index in range(config.num_layers)):
        for name, out, inner in (
            ("self_attn.q_proj", heads, config.hidden),
            ("self_attn.k_proj", kv_heads, config.hidden),
            ("self_attn.v_proj", kv_heads, config.hidden),
            ("self_attn.o_proj", config.hidden, heads),
            ("mlp.gate_proj", config.intermediate, config.hidden),
            ("mlp.up_proj", config.intermediate, config.hidden),
            ("mlp.down_proj", config.hidden, config.intermediate),
        ):
            weights[f"{at}.{name}.weight"] = drawn(out, inner)
            weights[f"{at}.{name}.bias"] = drawn(out)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{at}.{name}.weight"] = drawn(config.hidden)
        for name in ("q_norm", "k_norm"):
            weights[f"{at}.self_attn.{name}.weight"] = drawn(config.head_dim)
    return DecoderLM(config, weights, torch.float32, "cpu")


class Batch:
    """Running sequences whose keys and values are random, in blocks of a random order."""

    def __init__(self, model: DecoderLM, lengths: list[int], block_size: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        needed = [-(-length // block_size) for length in lengths]
        ends = np.cumsum([0, *needed])
        order = rng.permutation(ends[-1] + 3).tolist()
        self.rows = BatchRows(len(lengths), max(needed))
        self.kv = torch.full(
            (model.config.num_layers, 2, len(order), block_size, model.config.num_kv_heads,
             model.config.head_dim), float("nan"),
        )  # fmt: skip
        for length, (start, end) in zip(lengths, pairwise(ends), strict=True):
            prompt = tuple(rng.integers(0, model.config.vocab, length).tolist())
            request = GenerateRequest(
                request_id="r", prompt_token_ids=prompt, sampling=SamplingParams(max_tokens=1)
            )
            seq = Sequence(
                request=request, choice=Choice(), mode=Mode.GENERATE, arrival=0,
                token_ids=list(prompt), blocks=order[start:end],
            )  # fmt: skip
            self.rows.assign(seq, int(rng.integers(-length + 1, 5)))
            filed = torch.from_numpy(rng.normal(size=(*self.kv[:, :, seq.blocks].shape,)))
            filed = filed.float().flatten(2, 3)
            filed[:, :, length - 1 :] = float("nan")  # the last token's come in the step
            self.kv[:, :, seq.blocks] = filed.view_as(self.kv[:, :, seq.blocks])

    def expected(self, model: DecoderLM, which: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """(logits, KV) of the general pass, with zeros where nobody should look."""
        kv = self.kv.nan_to_num(0.0)
        buffers = StepBuffers(
            self.rows, block_size=kv.shape[3], max_tokens=len(which), device=torch.device("cpu")
        )
        with torch.inference_mode():
            return model.logits(model.forward(buffers.decodes(which), kv)), kv


@pytest.fixture(scope="module", params=[COMPILER, VECTORS_OF_8], ids=["native", "vectors of 8"])
def compiled(request, tmp_path_factory):
    if COMPILER is None:
        pytest.skip("there is no C compiler")
    try:
        return build._load(shlex.split(request.param), tmp_path_factory.getbasetemp() / "compiled")
    except subprocess.CalledProcessError:
        pytest.skip(f"this processor knows no {request.param}")


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_batch_of_any_small_model_gets_the_general_pass_logits_and_keys(compiled, data):
    draw, kv_heads = data.draw, data.draw(st.integers(1, 3))
    model = model_of(
        draw(st.integers(0, 2**31)),
        num_layers=draw(st.integers(1, 3)),
        hidden=draw(st.integers(1, 90)),
        intermediate=draw(st.integers(1, 90)),
        vocab=draw(st.integers(2, 140)),
        num_kv_heads=kv_heads,
        num_heads=kv_heads * draw(st.integers(1, 4)),
        head_dim=draw(st.sampled_from([16, 32, 48, 64])),
        qk_norm=draw(st.booleans()),
        attention_bias=draw(st.booleans()),
        output_bias=draw(st.booleans()),
        tie_embeddings=draw(st.booleans()),
    )
    lengths = draw(st.lists(st.integers(1, 70), min_size=1, max_size=19))
    batch = Batch(model, lengths, draw(st.integers(1, 20)), draw(st.integers(0, 2**31)))
    which = np.array(draw(st.permutations(range(len(lengths)))), np.int64)
    which = which[: draw(st.integers(1, len(which)))]
    logits, kv = batch.expected(model, which)
    before = batch.kv.clone()
    step = NativeDecode(compiled, model, batch.kv, batch.rows)
    torch.testing.assert_close(step.logits(which), logits, rtol=2e-4, atol=2e-4)
    changed = (before != batch.kv) & ~(before.isnan() & batch.kv.isnan())
    assert int(changed.sum()) == len(which) * before[:, :, 0, 0].numel()
    torch.testing.assert_close(batch.kv[changed], kv[changed], rtol=2e-4, atol=2e-4)


def test_a_row_gets_the_same_bits_alone_and_in_company(compiled):
    model = model_of(3)
    batch = Batch(model, [1, 9, 40, 17, 23, 5, 66, 2, 31, 12, 8, 19], block_size=8, seed=5)
    step = NativeDecode(compiled, model, batch.kv, batch.rows)
    together = step.logits(np.arange(12)).clone()
    for row in range(12):
        assert torch.equal(step.logits(np.array([row]))[0], together[row]), row


def test_a_broken_weight_shows_in_the_logits(compiled):
    model = model_of(4)
    model.embedding[7] = float("nan")
    batch = Batch(model, [5, 5], block_size=4, seed=1)
    batch.rows.last_token[:] = 7, 8
    logits = NativeDecode(compiled, model, batch.kv, batch.rows).logits(np.arange(2))
    assert logits[0].isnan().all()
    assert logits[1].isfinite().all()


def test_very_large_scores_do_not_overflow(compiled):
    model = model_of(6, num_layers=1)
    batch = Batch(model, [30], block_size=8, seed=2)
    batch.kv *= 1e4
    logits, _ = batch.expected(model, np.arange(1))
    step = NativeDecode(compiled, model, batch.kv, batch.rows)
    assert logits.isfinite().all()
    torch.testing.assert_close(step.logits(np.arange(1)), logits, rtol=1e-3, atol=1e-3)


@needs_compiler
def test_it_serves_small_float32_models_alone(monkeypatch):
    model = model_of(1)
    batch = Batch(model, [3], block_size=4, seed=0)

    def serves(kv: torch.Tensor = batch.kv) -> bool:
        return NativeDecode.of(model, kv, batch.rows) is not None

    assert serves()
    assert not serves(batch.kv.bfloat16())
    monkeypatch.setattr(native_decode, "_MOST_BYTES", 30_000)
    assert not serves()
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    plain = model_of(1)
    plain.layers[1].mlp.down = QuantizedLinear(plain.layers[1].mlp.down, torch.int8)
    assert NativeDecode.of(plain, batch.kv, batch.rows) is None


def runner_of(model: DecoderLM, batch: Batch, *, native: bool = True) -> Runner:
    media = torch.empty(0, model.config.hidden)
    return Runner(
        model, batch.kv, media, batch.rows, max_tokens=8, eos_token_ids=(),
        static_shapes=False, cuda_graphs=False, native=native,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("program", "said"),
    [("/bin/false", "non-zero exit status 1"), ("no-such-compiler", "No such file"), ("", "no C")],
)
def test_without_a_working_compiler_a_line_says_so_and_torch_decodes(
    monkeypatch, tmp_path, caplog, program, said
):
    monkeypatch.setenv("CC", program)
    monkeypatch.setenv("PATH", str(tmp_path))
    build.library.cache_clear()
    try:
        with caplog.at_level(logging.INFO):
            model = model_of(1)
            runner = runner_of(model, Batch(model, [3], block_size=4, seed=0))
    finally:
        build.library.cache_clear()
    assert isinstance(runner._cpu_decode, CpuDecode)
    assert said in caplog.text


def test_it_can_be_switched_off():
    model = model_of(1)
    runner = runner_of(model, Batch(model, [3], block_size=4, seed=0), native=False)
    assert isinstance(runner._cpu_decode, CpuDecode)


@needs_compiler
def test_the_library_is_kept_and_found_again(tmp_path, monkeypatch):
    compiler = [str(COMPILER)]
    build._load(compiler, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").glob("*.so")
    monkeypatch.setattr(build, "_compile", None)  # not called again
    assert build._load(compiler, tmp_path / "cache")._name == str(kept)
    with pytest.raises(TypeError):
        build._load(compiler, tmp_path / "another")


@needs_compiler
def test_a_cache_that_cannot_be_written_costs_a_compilation_only(tmp_path):
    (tmp_path / "file").write_text("not a directory")
    loaded = build._load([str(COMPILER)], tmp_path / "file" / "cache")
    assert loaded.tile_width() % 8 == 0


@needs_compiler
def test_a_user_without_a_home_keeps_nothing_and_leaves_no_folder_named_tilde(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it is for such a user
    assert build._load([str(COMPILER)], cache_directory()).tile_width() % 8 == 0
    assert list(tmp_path.iterdir()) == []


@needs_compiler
def test_workers_that_start_together_all_get_it(tmp_path):
    code = "from epidote_engine.native import build; print(build.library().tile_width())"
    environment = {"XDG_CACHE_HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    environment["PYTHONPATH"] = ":".join(path for path in sys.path if path)
    workers = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    said = [worker.communicate(timeout=280)[0] for worker in workers]
    assert len(set(said)) == 1
    assert int(said[0]) in (16, 32)
    assert len(list((tmp_path / "epidote").glob("*.so"))) == 1
