"""What users would pick instead, in the same process on the same inputs, beside what we have.

    python kernels/bench/bench_gpu_peers.py
    python kernels/bench/bench_gpu_peers.py --device cpu --toy   # that it runs, and nothing else

Attention: torch's SDPA, each backend that takes the shape, and FlashInfer where it is installed.
MoE: a composition around `torch._grouped_mm`. Engine: `transformers` `generate` and continuous
batching with the same random weights. A peer that refuses or is missing is told of, with its words.
"""

import gc
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from bench_gpu import number_type, parser, relative_error, write
from bench_models import save_text_model, save_vision_model, text_config
from device_limits import conditions, measure_limits, progress, seconds, wait
from engine_cases import REAL, TOY, engine_of, picture, request_of
from goals import as_text, peer_goals
from torch.nn.attention import SDPBackend, sdpa_kernel

from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_engine.random_weights import RandomWeights
from epidote_engine.tensor_shapes import language_shapes, vision_shapes
from epidote_kernels import ops
from epidote_kernels.fakes import cumulative, paged_batch

Run = Callable[[], Any]
BACKENDS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
PEER_TOLERANCE = 3e-2  # two bf16 kernels that round in other places


def compared(name: str, ours: Run, peers: dict[str, Run], device: str, *, toy: bool) -> dict:
    """Times of all; our ratio to the best that agrees with us."""
    wanted = ours()
    line: dict[str, Any] = {"case": name, "ours_s": seconds(ours, device, toy=toy), "peers": {}}
    for peer, run in peers.items():
        try:
            error = relative_error(run(), wanted)
            if error > PEER_TOLERANCE:
                line["peers"][peer] = {"differs": error}
                continue
            line["peers"][peer] = {"time_s": seconds(run, device, toy=toy)}
        except Exception as failed:  # whatever a peer can't do must not end the bench
            line["peers"][peer] = {"refused": f"{type(failed).__name__}: {failed}"[:200]}
    times = [p["time_s"] for p in line["peers"].values() if "time_s" in p]
    if times:
        line["best_peer_over_ours"] = min(times) / line["ours_s"]
    progress(json.dumps(line))
    return line


def prefill(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[dict[str, Any]]:
    """Causal attention of one long prompt, GQA."""
    heads, kv_heads, dim = (4, 2, 16) if toy else (32, 8, 128)
    for length in (17,) if toy else (2048, 8192):
        batch = paged_batch(
            [length], num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device, elsewhere=0.0
        )
        q = torch.randn(length, heads, dim, device=device).to(dtype)
        bounds = cumulative([length], device)
        blocks = batch.block_tables[0, : -(-length // 16)].long()
        k, v = (
            cache[blocks].flatten(0, 1)[:length].transpose(0, 1)[None]
            for cache in (batch.k_cache, batch.v_cache)
        )
        query = q.transpose(0, 1)[None]

        def ours(q=q, batch=batch, bounds=bounds, length=length) -> torch.Tensor:
            return ops.paged_prefill_attention(
                q, batch.k_cache, batch.v_cache, batch.block_tables, bounds, batch.seq_lens,
                scale=dim**-0.5, max_q_len=length,
            )  # fmt: skip

        peers = {
            name: (lambda b=b, query=query, k=k, v=v: _sdpa(query, k, v, b, causal=True))
            for name, b in BACKENDS.items()
        }
        yield compared(f"prefill L={length}", ours, peers, device, toy=toy)


def vision(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[dict[str, Any]]:
    """Attention inside pictures of one size, which SDPA takes as a batch."""
    count, length, heads, dim = (2, 9, 2, 16) if toy else (8, 4096, 16, 72)
    q, k, v = torch.randn(count * length, 3, heads, dim, device=device).to(dtype).unbind(1)
    bounds = cumulative([length] * count, device)
    packed = [x.view(count, length, heads, dim).transpose(1, 2) for x in (q, k, v)]
    peers = {name: (lambda b=b: _sdpa(*packed, b, causal=False)) for name, b in BACKENDS.items()}
    yield compared(
        f"vision {count}x{length} D={dim}",
        lambda: ops.vision_attention(q, k, v, bounds, scale=dim**-0.5, max_seqlen=length),
        peers, device, toy=toy,
    )  # fmt: skip


def _sdpa(q: Any, k: Any, v: Any, backend: SDPBackend, *, causal: bool) -> torch.Tensor:
    """[T, H, D], as ours."""
    gqa = q.shape[1] != k.shape[1]
    with sdpa_kernel(backend):
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=gqa
        )
    return out.transpose(1, 2).flatten(0, 1)


def decode(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[dict[str, Any]]:
    """Paged decode attention beside FlashInfer's."""
    heads, kv_heads, dim = (4, 2, 16) if toy else (32, 8, 128)
    for num_seqs, length in ((2, 17),) if toy else ((64, 4096), (64, 32768), (1, 32768)):
        batch = paged_batch(
            [length] * num_seqs, num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device,
            elsewhere=0.0,
        )  # fmt: skip
        q = torch.randn(num_seqs, heads, dim, device=device).to(dtype)

        def ours(q=q, batch=batch) -> torch.Tensor:
            return ops.paged_decode_attention(q, *vars(batch).values(), scale=dim**-0.5)

        try:
            peers = {"flashinfer": flashinfer_decode(q, batch, length, dtype)}
        except Exception as missing:  # not installed, or it does not build here
            words = f"{type(missing).__name__}: {missing}"[:200]
            peers = {"flashinfer": lambda words=words: _raise(words)}
        yield compared(f"decode S={num_seqs} L={length}", ours, peers, device, toy=toy)


def _raise(words: str) -> None:
    raise RuntimeError(words)


def flashinfer_decode(q: torch.Tensor, batch: Any, length: int, dtype: torch.dtype) -> Run:
    """FlashInfer's batched decode over the same paged cache, planned outside the clock."""
    import flashinfer

    num_seqs, heads, dim = q.shape
    per_seq, device = -(-length // 16), q.device
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(workspace, "NHD")
    starts = torch.arange(num_seqs + 1, dtype=torch.int32, device=device) * per_seq
    pages = batch.block_tables[:, :per_seq].reshape(-1).contiguous()
    last = torch.full((num_seqs,), length - (per_seq - 1) * 16, dtype=torch.int32, device=device)
    wrapper.plan(
        starts, pages, last, heads, batch.k_cache.shape[2], dim, 16,
        q_data_type=dtype, kv_data_type=dtype,
    )  # fmt: skip
    return lambda: wrapper.run(q, (batch.k_cache, batch.v_cache))


def moe(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[dict[str, Any]]:
    """Fused MoE beside a composition around `torch._grouped_mm`, balanced and skewed."""
    from epidote_kernels.reference.grouped_mm_moe import grouped_mm_moe

    experts, top_k, hidden, inner = (4, 2, 32, 16) if toy else (128, 8, 2048, 768)
    gate_up = torch.randn(experts, 2 * inner, hidden, device=device).to(dtype) * hidden**-0.5
    down = torch.randn(experts, hidden, inner, device=device).to(dtype) * inner**-0.5
    for tokens in (1, 5) if toy else (1, 8, 64, 512, 4096):
        x = torch.randn(tokens, hidden, device=device).to(dtype)
        for skewed in (False, True):
            logits = torch.randn(tokens, experts, device=device)
            if skewed:
                logits -= torch.arange(experts, device=device) * (8.0 / experts)
            routed = ops.moe_route(logits.to(dtype), top_k)
            yield compared(
                f"moe T={tokens}" + " skewed" * skewed,
                lambda x=x, routed=routed: ops.fused_moe(x, gate_up, down, *routed),
                {"torch._grouped_mm": lambda x=x, routed=routed: grouped_mm_moe(
                    x, gate_up, down, *routed)},
                device, toy=toy,
            )  # fmt: skip


def engines(device: str, dtype: torch.dtype, *, toy: bool) -> dict[str, Any]:
    """Tokens per second of our engine, `generate` and continuous batching, the same weights."""
    sys.path.append(str(Path(__file__).parents[2] / "workers" / "bench"))
    from transformers_peers import continuous_batching, left_padded

    count, length, new = (3, 9, 4) if toy else (64, 512, 128)
    rng, rates = Random(3), {}
    with tempfile.TemporaryDirectory() as folder:
        path = save_text_model(Path(folder), toy=toy)
        ours = engine_of(path, device, num_kv_blocks=count * ((length + new) // 16 + 2),
                         max_num_seqs=count, max_batched_tokens=8192, chunk_tokens=4096,
                         max_model_len=length + new + 64)  # fmt: skip
        spec = ours._spec
    requests = [request_of(rng, f"{n}", length, new) for n in range(count)]
    prompts: list[Sequence[int]] = [r.prompt_token_ids for r in requests]
    answers: dict[str, list[list[int]]] = {}
    for turn in range(1 if toy else 2):  # the first compiles
        start_s = time.perf_counter()
        found = serve(ours, requests)
        wait(device)
        rates["epidote"] = count * new / (time.perf_counter() - start_s)
        answers["epidote"] = [found[f"{n}", 0].token_ids for n in range(count)]
        progress(f"epidote, round {turn}: {rates['epidote']:.0f} tokens/s")
    del ours
    gc.collect()  # an engine and its parts know each other
    if device.startswith("cuda"):
        torch.cuda.empty_cache()
    model = same_model(spec, device, dtype, toy=toy)
    ids, mask = (x.to(device) for x in left_padded(prompts, 0))
    torch.set_grad_enabled(False)

    def generate() -> list[list[int]]:
        out = model.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new,
                             do_sample=False, eos_token_id=None, pad_token_id=0)  # fmt: skip
        return [row[length:].tolist() for row in out]

    runs: dict[str, Run] = {"transformers generate": generate}
    problems = {}
    # on a GPU it gets the memory and the step budget that we have
    room = {} if toy else {"num_blocks": None, "max_batch_tokens": 8192}
    with continuous_batching(model, 0, **room) as batched:
        runs["transformers continuous batching"] = lambda: batched(prompts, new)
        for name, run in runs.items():
            try:
                for _ in range(1 if toy else 2):
                    start_s = time.perf_counter()
                    answers[name] = run()
                    wait(device)
                    rates[name] = count * new / (time.perf_counter() - start_s)
            except Exception as failed:  # a peer that can't must not end the bench
                problems[name] = f"{type(failed).__name__}: {failed}"[:300]
    same = {
        name: sum(a == b for a, b in zip(answers["epidote"], given, strict=False)) / count
        for name, given in answers.items()
    }
    others = [rate for name, rate in rates.items() if name != "epidote"]
    return {
        "requests": count,
        "prompt_tokens": length,
        "new_tokens": new,
        "tokens_per_s": rates,
        "answers_equal_ratio": same,  # bf16 may part ways: told, not hidden
        "refused": problems,
        **({"ours_over_best_peer": rates["epidote"] / max(others)} if others else {}),
    }


def four_pictures(device: str, dtype: torch.dtype, *, toy: bool) -> dict[str, Any]:
    """Time to the first token of a request with four pictures; `generate` with prepared inputs."""
    sys.path.append(str(Path(__file__).parents[2] / "workers" / "bench"))
    from transformers import AutoImageProcessor
    from transformers_peers import image_inputs

    side, rounds = (TOY if toy else REAL).picture, 2 if toy else 6
    with tempfile.TemporaryDirectory() as folder:
        path = save_vision_model(Path(folder), toy=toy)
        ours = engine_of(path, device, num_kv_blocks=2048, max_batched_tokens=8192,
                         chunk_tokens=8192, num_media_rows=16384)  # fmt: skip
        processor = PromptProcessor.from_model(path)
        images, spec = AutoImageProcessor.from_pretrained(path), ours._spec
        config = json.loads((Path(folder) / "config.json").read_text())
    model = same_vision_model(config, spec, device, dtype)
    times: dict[str, list[float]] = {"epidote": [], "transformers generate": []}
    answers: dict[str, list[int]] = {"epidote": [], "transformers generate": []}
    for turn in range(rounds):
        media = [picture(processor, side, 10 * turn + n) for n in range(4)]
        content: list[dict[str, Any]] = [{"type": "image"}] * 4
        content = [*content, {"type": "text", "text": "What do they have in common?"}]
        rendered = processor.render_chat([{"role": "user", "content": content}], media=media)
        request = GenerateRequest(
            request_id=f"{turn}",
            prompt_token_ids=tuple(rendered.token_ids),
            media=tuple(rendered.media),
            sampling=SamplingParams(max_tokens=1, temperature=0.0, ignore_eos=True),
        )
        start_s = time.perf_counter()
        answers["epidote"] += serve(ours, [request], media)[f"{turn}", 0].token_ids
        times["epidote"].append(time.perf_counter() - start_s)
        ids = torch.tensor([rendered.token_ids], device=device)
        extra = {k: v.to(device) for k, v in image_inputs(images, media).items()}
        extra["mm_token_type_ids"] = (ids == config["image_token_id"]).int()
        start_s = time.perf_counter()
        out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1,
                             do_sample=False, pad_token_id=0, **extra)  # fmt: skip
        answers["transformers generate"].append(int(out[0, -1]))
        times["transformers generate"].append(time.perf_counter() - start_s)
    return {
        "prompt_tokens": len(rendered.token_ids),
        "ttft_s": {name: statistics.median(found[1:]) for name, found in times.items()},
        "first_tokens_equal_ratio": sum(
            a == b for a, b in zip(*answers.values(), strict=True)
        ) / rounds,
    }  # fmt: skip


def same_vision_model(config: dict[str, Any], spec: Any, device: str, dtype: torch.dtype) -> Any:
    """transformers' Qwen3-VL with the very weights that our engine drew."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    fields = {k: v for k, v in config.items() if k not in ("architectures", "model_type", "dtype")}
    with torch.device("cpu" if device == "cpu" else device):
        # buffers that follow from the configuration are made where they are used
        model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**fields)).to(dtype)
    language = RandomWeights(language_shapes(spec), dtype=dtype, device=device)
    vision = RandomWeights(vision_shapes(spec.vision), dtype=dtype, device=device)
    state = {name if name.startswith("lm_head") else f"model.language_model.{name}": language[name]
             for name in language}  # fmt: skip
    state |= {f"model.visual.{name}": vision[name] for name in vision}
    model.load_state_dict(state, assign=True)
    return model.eval()


def same_model(spec: Any, device: str, dtype: torch.dtype, *, toy: bool) -> Any:
    """transformers' Qwen3 with the very weights that our engine drew."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **text_config(toy=toy), rope_parameters={"rope_type": "default", "rope_theta": 1e6}
    )
    with torch.device("meta"):
        model = Qwen3ForCausalLM(config)
    model = model.to(dtype).to_empty(device=device)
    weights = RandomWeights(language_shapes(spec), dtype=dtype, device=device)
    state = {name if name.startswith("lm_head") else f"model.{name}": weights[name]
             for name in weights}  # fmt: skip
    model.load_state_dict(state, assign=True)
    model.model.rotary_emb = type(model.model.rotary_emb)(config=config).to(device)
    return model.eval()


def main(given: list[str]) -> int:
    """Write the comparison."""
    chosen = parser(__doc__.splitlines()[0]).parse_args(given)
    device, toy, dtype = chosen.device, chosen.toy, number_type(chosen.device)
    torch.manual_seed(0)
    limits = measure_limits(device, dtype, toy=toy)
    result = conditions(device, dtype, limits, toy=toy)
    lines: list[dict[str, Any]] = []
    with torch.inference_mode():
        for part in (prefill, decode, vision, moe):
            lines += part(device, dtype, toy=toy)
    result["kernels"] = lines
    result["engine"] = engines(device, dtype, toy=toy)
    progress(json.dumps(result["engine"], indent=1))
    gc.collect()
    result["four_pictures"] = four_pictures(device, dtype, toy=toy)
    progress(json.dumps(result["four_pictures"], indent=1))
    goals = peer_goals(result)
    result["goals"] = [goal.told() for goal in goals]
    progress("\n".join(map(as_text, goals)))
    print(write(result, chosen.out, "-peers"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
