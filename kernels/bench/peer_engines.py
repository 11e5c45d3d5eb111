"""This file is about `transformers` beside our engine, in one process with the same random weights:
tokens per second, time to the first token with pictures, and the very tokens in float32.

Ours is measured and kept whether or not there is a peer; what a peer can't do is told in its words.
"""

import gc
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import torch
from bench_models import save_text_model, save_vision_model, text_config
from device_limits import progress, wait
from engine_cases import (
    REAL,
    TOY,
    engine_of,
    four_new_pictures,
    picture_engine,
    request_of,
)
from recording import words_of

from epidote_core.generation import GenerateRequest
from epidote_engine.engine import Engine
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_engine.random_weights import RandomWeights
from epidote_engine.tensor_shapes import language_shapes, vision_shapes

PEERS_FOLDER = str(Path(__file__).parents[2] / "workers" / "bench")
GENERATE, BATCHING = "transformers generate", "transformers continuous batching"
EXACT_LAYERS = 4  # of the float32 comparison: whether tokens are equal needs no more


def engines(device: str, dtype: torch.dtype, *, toy: bool) -> dict[str, Any]:
    """Tokens per second of our engine, `generate` and continuous batching, the same weights."""
    count, length, new = (3, 9, 4) if toy else (64, 512, 128)
    rounds = 1 if toy else 2  # the first compiles
    rng = Random(3)
    requests = [request_of(rng, f"{n}", length, new) for n in range(count)]
    prompts: list[Sequence[int]] = [r.prompt_token_ids for r in requests]
    rates: dict[str, float] = {}
    answers: dict[str, list[list[int]]] = {}
    refused: dict[str, str] = {}

    def measure(name: str, run: Callable[[], list[list[int]]]) -> None:
        for turn in range(rounds):
            start_s = time.perf_counter()
            found = run()
            wait(device)
            rates[name] = count * new / (time.perf_counter() - start_s)
            answers[name] = found
            progress(f"{name}, round {turn}: {rates[name]:.0f} tokens/s")

    with tempfile.TemporaryDirectory() as folder:
        path = save_text_model(Path(folder), toy=toy)
        ours = engine_of(path, device, num_kv_blocks=count * ((length + new) // 16 + 2),
                         max_num_seqs=count, max_batched_tokens=8192, chunk_tokens=4096,
                         max_model_len=length + new + 64)  # fmt: skip
        spec = ours._spec
    measure("epidote", partial(answered, ours, requests))
    del ours
    _free(device)
    try:
        with torch.no_grad():
            _peers(spec, prompts, new, device, dtype, measure, refused, toy=toy)
    except Exception as failed:  # not installed, or it does not take these weights
        refused |= {n: words_of(failed) for n in (GENERATE, BATCHING) if n not in rates}
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
        "refused": refused,
        **({"ours_over_best_peer": rates["epidote"] / max(others)} if others else {}),
    }


def answered(engine: Engine, requests: Sequence[GenerateRequest]) -> list[list[int]]:
    """The tokens of each, in order."""
    found = serve(engine, requests)
    return [found[request.request_id, 0].token_ids for request in requests]


def _peers(
    spec: Any, prompts: list[Sequence[int]], new: int, device: str, dtype: torch.dtype,
    measure: Callable[[str, Callable[[], list[list[int]]]], None], refused: dict[str, str],
    *, toy: bool,
) -> None:  # fmt: skip
    """Measure `generate` and continuous batching; a refusal of one is not the other's."""
    model = same_model(spec, device, dtype, toy=toy)
    # on a GPU it gets the memory and the step budget that we have
    room = {} if toy else {"num_blocks": None, "max_batch_tokens": 8192}
    with transformers_peers().continuous_batching(model, 0, **room) as batched:
        for name, run in (
            (GENERATE, lambda: generated(model, prompts, new, device)),
            (BATCHING, lambda: batched(prompts, new)),
        ):
            try:
                measure(name, run)
            except Exception as failed:  # a peer that can't must not end the bench
                refused[name] = words_of(failed)


def generated(model: Any, prompts: Sequence[Sequence[int]], new: int, device: str) -> Any:
    """`generate`'s greedy answers to prompts of one length."""
    ids, mask = (x.to(device) for x in transformers_peers().left_padded(prompts, 0))
    out = model.generate(ids, attention_mask=mask, max_new_tokens=new, min_new_tokens=new,
                         do_sample=False, eos_token_id=None, pad_token_id=0)  # fmt: skip
    return [row[ids.shape[1] :].tolist() for row in out]


def greedy_float32(device: str, *, toy: bool) -> dict[str, Any]:
    """The share of greedy answers in float32 that are, token for token, `generate`'s."""
    count, length, new = (3, 9, 4) if toy else (8, 300, 64)
    num_layers = None if toy else EXACT_LAYERS
    rng = Random(5)
    requests = [request_of(rng, f"{n}", length, new) for n in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        path = save_text_model(Path(folder), toy=toy, num_layers=num_layers)
        ours = engine_of(path, device, dtype="float32", max_num_seqs=count,
                         num_kv_blocks=count * ((length + new) // 16 + 2),
                         max_batched_tokens=1024, chunk_tokens=256,
                         max_model_len=length + new + 64)  # fmt: skip
        spec = ours._spec
    answers = answered(ours, requests)
    del ours
    _free(device)
    with torch.no_grad():
        model = same_model(spec, device, torch.float32, toy=toy, num_layers=num_layers)
        wanted = generated(model, [r.prompt_token_ids for r in requests], new, device)
    first = [
        next((n for n, pair in enumerate(zip(a, b, strict=True)) if pair[0] != pair[1]), new)
        for a, b in zip(answers, wanted, strict=True)
    ]
    return {
        "requests": count,
        "new_tokens": new,
        "layers": spec.decoder.num_layers,
        "answers_equal_ratio": sum(n == new for n in first) / count,
        "equal_tokens_before_the_first_other": first,
    }


def four_pictures(device: str, dtype: torch.dtype, *, toy: bool) -> dict[str, Any]:
    """Time to the first token of a request with four pictures; `generate` with prepared inputs."""
    side, rounds = (TOY if toy else REAL).picture, 2 if toy else 6
    times: dict[str, list[float]] = {"epidote": []}
    answers: dict[str, list[int]] = {"epidote": []}
    refused = ""
    with tempfile.TemporaryDirectory() as folder:
        path = save_vision_model(Path(folder), toy=toy)
        ours = picture_engine(path, device)
        processor = PromptProcessor.from_model(path)
        config = json.loads((Path(folder) / "config.json").read_text())
        try:
            peer = _first_token_of(path, config, ours._spec, device, dtype)
        except Exception as failed:  # not installed, no memory left, …
            peer, refused = None, words_of(failed)
    num_tokens = 0
    for turn in range(rounds):
        request, media = four_new_pictures(processor, side, turn, max_tokens=1)
        num_tokens = len(request.prompt_token_ids)
        start_s = time.perf_counter()
        answers["epidote"] += serve(ours, [request], media)[f"{turn}", 0].token_ids
        times["epidote"].append(time.perf_counter() - start_s)
        if peer is None:
            continue
        try:
            token, taken_s = peer(request.prompt_token_ids, media)
        except Exception as failed:  # a peer that can't must not end the bench
            peer, refused = None, words_of(failed)
            continue
        answers.setdefault(GENERATE, []).append(token)
        times.setdefault(GENERATE, []).append(taken_s)
    pairs = list(zip(answers["epidote"], answers.get(GENERATE, []), strict=False))
    return {
        "prompt_tokens": num_tokens,
        "ttft_s": {n: statistics.median(t[1:]) for n, t in times.items() if len(t) > 1},
        **({"first_tokens_equal_ratio": sum(a == b for a, b in pairs) / len(pairs)}
           if pairs else {}),
        **({"refused": refused} if refused else {}),
    }  # fmt: skip


def _first_token_of(
    path: str, config: dict[str, Any], spec: Any, device: str, dtype: torch.dtype
) -> Callable[[Sequence[int], Sequence[Any]], tuple[int, float]]:
    """A function from (token ids, pictures) to `generate`'s first token and the seconds."""
    from transformers import AutoImageProcessor

    images = AutoImageProcessor.from_pretrained(path)
    inputs = transformers_peers().image_inputs
    model = same_vision_model(config, spec, device, dtype)

    def first(token_ids: Sequence[int], media: Sequence[Any]) -> tuple[int, float]:
        ids = torch.tensor([token_ids], device=device)
        extra = {k: v.to(device) for k, v in inputs(images, media).items()}
        extra["mm_token_type_ids"] = (ids == config["image_token_id"]).int()
        start_s = time.perf_counter()
        with torch.no_grad():
            out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=1,
                                 do_sample=False, pad_token_id=0, **extra)  # fmt: skip
        return int(out[0, -1]), time.perf_counter() - start_s

    return first


def transformers_peers() -> Any:
    """The module that the CPU's benches have for the same peers, in another folder of scripts."""
    if PEERS_FOLDER not in sys.path:
        sys.path.append(PEERS_FOLDER)
    return importlib.import_module("transformers_peers")


def _free(device: str) -> None:
    gc.collect()  # an engine and its parts know each other
    if device.startswith("cuda"):
        torch.cuda.empty_cache()


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


def same_model(
    spec: Any, device: str, dtype: torch.dtype, *, toy: bool, num_layers: int | None = None
) -> Any:
    """transformers' Qwen3 with the very weights that our engine drew."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        **text_config(toy=toy, num_layers=num_layers),
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
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
