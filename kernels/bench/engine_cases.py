"""This file is about the engine on one device: pictures, a mixed load, and role switches. Random
weights of real shapes; prompts are random tokens. Decode steps: `decode_cases`.
"""

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from bench_models import save_vision_model
from device_limits import progress, wait

from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import TokensOut
from epidote_engine.processing import PromptProcessor
from epidote_engine.settings import WeightsPolicy
from epidote_engine.tensor_shapes import language_shapes, vision_shapes
from epidote_engine.tiny_models import noise_image


@dataclass(frozen=True)
class Scale:
    """How large everything is: `REAL` on a GPU, `TOY` to see that it runs."""

    num_seqs: int
    context: int
    num_steps: int
    picture: int  # pixels on a side
    load_s: float  # of arrivals at each rate
    rates: tuple[float, ...]  # requests per second, rising
    long_prompt: int
    ttft_s: float
    tpot_s: float
    switch_layers: int


REAL = Scale(64, 4096, 60, 1024, 10.0, (4, 8, 16, 32, 64), 6000, 1.0, 0.05, 8)
# a toy's limits are for a machine that does much else at the same time
TOY = Scale(3, 20, 5, 64, 0.3, (10, 20), 60, 1e6, 1e6, 2)


def request_of(rng: Random, name: str, num_tokens: int, max_tokens: int) -> GenerateRequest:
    """Random bytes as a prompt; it never ends by itself."""
    return GenerateRequest(
        request_id=name,
        prompt_token_ids=tuple(rng.randrange(256) for _ in range(num_tokens)),
        sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
    )


def engine_of(path: str, device: str, **given: Any) -> Engine:
    """Weights at random, bf16 on a GPU."""
    dtype = "bfloat16" if device.startswith("cuda") else "float32"
    # prefix caching off: every round computes what it measures
    values = {"prefix_caching": False, "random_weights": True, "dtype": dtype, "device": device}
    return Engine(EngineConfig(model=path, **values | given))


def pictures(folder: Path, device: str, *, toy: bool) -> dict[str, Any]:
    """TTFT of a request with four new pictures, nothing else on the device, encoder warm."""
    scale = TOY if toy else REAL
    path = save_vision_model(folder / "vision", toy=toy)
    engine = picture_engine(path, device)
    processor = PromptProcessor.from_model(path)
    rounds, times, num_tokens = (2 if toy else 8), [], 0
    for turn in range(rounds):
        request, media = four_new_pictures(processor, scale.picture, turn, max_tokens=2)
        num_tokens = len(request.prompt_token_ids)
        start_s = time.perf_counter()
        engine.add(request)
        for pixels in media:
            engine.submit_media(pixels)
        first_s = 0.0
        while engine.has_work():
            if any(isinstance(event, TokensOut) for event in engine.step()) and not first_s:
                first_s = time.perf_counter() - start_s
        times.append(first_s)
    return {
        "images": 4,
        "prompt_tokens": num_tokens,
        "ttft_s": statistics.median(times[1:]),
        "first_ttft_s": times[0],
    }


def picture_engine(path: str, device: str) -> Engine:
    """One that takes four large pictures and their prompt in a step."""
    return engine_of(path, device, num_kv_blocks=2048, max_batched_tokens=8192,
                     chunk_tokens=8192, num_media_rows=16384)  # fmt: skip


def four_new_pictures(
    processor: PromptProcessor, side: int, turn: int, *, max_tokens: int
) -> tuple[GenerateRequest, list[MediaPixels]]:
    """The request named `turn`, about pictures that no other turn has."""
    media = [picture(processor, side, 10 * turn + n) for n in range(4)]
    content: list[dict[str, Any]] = [{"type": "image"}] * 4
    content = [*content, {"type": "text", "text": "What do they have in common?"}]
    rendered = processor.render_chat([{"role": "user", "content": content}], media=media)
    request = GenerateRequest(
        request_id=f"{turn}",
        prompt_token_ids=tuple(rendered.token_ids),
        media=tuple(rendered.media),
        sampling=SamplingParams(max_tokens=max_tokens, temperature=0.0, ignore_eos=True),
    )
    return request, media


def picture(processor: PromptProcessor, side: int, seed: int) -> MediaPixels:
    """A new picture: nobody has it in a cache."""
    return processor.prepare_image(noise_image(side, side, seed=seed), f"picture-{seed}")


def mixed_load(folder: Path, device: str, *, toy: bool) -> dict[str, Any]:
    """The highest rate at which nine of ten requests keep TTFT and TPOT.

    Of ten requests six are short chats, two long prompts, two have a picture. Arrivals are
    Poisson's; each rate runs until its last request has ended.
    """
    scale = TOY if toy else REAL
    path = save_vision_model(folder / "vision", toy=toy)
    engine = engine_of(path, device, num_kv_blocks=200 if toy else None, max_num_seqs=128,
                       max_batched_tokens=2048, chunk_tokens=1024,
                       num_media_rows=4096)  # fmt: skip
    processor = PromptProcessor.from_model(path)
    found: list[dict[str, Any]] = []
    for rate in scale.rates:
        found.append(run_rate(engine, processor, rate, scale))
        progress(f"  {rate} requests/s: {100 * found[-1]['attainment']:.0f} % kept both")
        if found[-1]["attainment"] < 0.9:
            break
    kept = [line["rate_rps"] for line in found if line["attainment"] >= 0.9]
    return {
        "ttft_limit_s": scale.ttft_s,
        "tpot_limit_s": scale.tpot_s,
        "highest_rate_rps": max(kept, default=0.0),
        "rates": found,
    }


def run_rate(
    engine: Engine, processor: PromptProcessor, rate: float, scale: Scale
) -> dict[str, Any]:
    """Everything that arrives within `scale.load_s` seconds, to its end."""
    rng = Random(f"{rate}")
    due = list(arrivals(rng, processor, rate, scale))
    began_s = time.perf_counter()
    added: dict[str, float] = {}
    first: dict[str, float] = {}
    last: dict[str, float] = {}
    count: dict[str, int] = {}
    while due or engine.has_work():
        now_s = time.perf_counter() - began_s
        while due and due[0][0] <= now_s:
            at_s, request, media = due.pop(0)
            added[request.request_id] = at_s
            engine.add(request)
            for pixels in media:
                engine.submit_media(pixels)
        events = engine.step()
        now_s = time.perf_counter() - began_s
        for event in events:
            if isinstance(event, TokensOut):
                name = event.request_id
                first.setdefault(name, now_s)
                last[name] = now_s
                count[name] = count.get(name, 0) + len(event.chunks[0].token_ids)
    ttft = {name: first[name] - at_s for name, at_s in added.items()}
    tpot = {name: (last[name] - first[name]) / max(count[name] - 1, 1) for name in added}
    kept = [n for n in added if ttft[n] <= scale.ttft_s and tpot[n] <= scale.tpot_s]
    ordered = sorted(ttft.values())
    return {
        "rate_rps": rate,
        "requests": len(added),
        "attainment": len(kept) / max(len(added), 1),
        "median_ttft_s": statistics.median(ordered),
        "p90_ttft_s": ordered[int(0.9 * (len(ordered) - 1))],
        "median_tpot_s": statistics.median(tpot.values()),
        "tokens_per_s": sum(count.values()) / (time.perf_counter() - began_s),
    }


def arrivals(
    rng: Random, processor: PromptProcessor, rate: float, scale: Scale
) -> Iterator[tuple[float, GenerateRequest, list[MediaPixels]]]:
    """(seconds after the start, request, its pictures); made before the clock starts."""
    at_s, number = 0.0, 0
    while number == 0 or at_s < scale.load_s:
        name, kind = f"{rate}-{number}", number % 10
        if kind in (3, 7):
            yield at_s, request_of(rng, name, scale.long_prompt, 16), []
        elif kind in (1, 5):
            pixels = picture(processor, scale.picture, rng.randrange(2**30))
            content = [{"type": "image"}, {"type": "text", "text": "Describe it."}]
            message = [{"role": "user", "content": content}]
            rendered = processor.render_chat(message, media=[pixels])
            request = GenerateRequest(
                request_id=name,
                prompt_token_ids=tuple(rendered.token_ids),
                media=tuple(rendered.media),
                sampling=SamplingParams(max_tokens=32, temperature=0.0, ignore_eos=True),
            )
            yield at_s, request, [pixels]
        else:
            yield at_s, request_of(rng, name, rng.randrange(20, 60), 48), []
        at_s += rng.expovariate(rate)
        number += 1


def role_switches(folder: Path, device: str, *, toy: bool) -> list[dict[str, Any]]:
    """Time of E→P, P→D, D→P and P→E, weights resident and released, and what was moved.

    As workers switch: a half of the model that comes is warmed up, on a GPU with a graph for every
    bucket, before the switch is done. The first switch of an engine also compiles. A part of the
    model's layers: time grows with the bytes, which are told. Moved are the weights of a half that
    the new role needs and that was not there; the pools stay where they are.
    """
    scale = TOY if toy else REAL
    path = save_vision_model(folder / "few", toy=toy, num_layers=scale.switch_layers)
    lines = []
    for policy in WeightsPolicy:
        engine = engine_of(path, device, num_kv_blocks=64, num_media_rows=1024, role=Role.ENCODE,
                           weights_policy=policy)  # fmt: skip
        again = (Role.PREFILL, Role.DECODE, Role.PREFILL, Role.ENCODE)
        for turn, role in enumerate((Role.PREFILL, Role.ENCODE, *again)):
            before, held, had = engine.role, allocated(device), loaded(engine)
            wait(device)
            start_s = time.perf_counter()
            engine.set_role(role)
            wait(device)
            taken_s = time.perf_counter() - start_s
            lines.append(
                {
                    "switch": f"{before} to {role}",
                    "weights": policy.value,
                    "is_first": turn == 0,
                    "time_s": taken_s,
                    "moved_bytes": sum(n for half, n in loaded(engine).items() if half not in had),
                    "device_bytes_before": held,
                    "device_bytes_after": allocated(device),
                }
            )
    return lines


def loaded(engine: Engine) -> dict[str, int]:
    """Bytes of the weights of each half of the model that is there."""
    spec, parts, found = engine._spec, engine._parts, {}
    width = 2 if engine.config.dtype == "bfloat16" else 4
    if parts.runner is not None:
        found["language"] = width * sum(map(math.prod, language_shapes(spec).values()))
    if parts.encoder is not None and spec.vision is not None:
        found["vision"] = width * sum(map(math.prod, vision_shapes(spec.vision).values()))
    return found


def allocated(device: str) -> int:
    """Bytes that torch holds for tensors on the device; 0 on a CPU."""
    return torch.cuda.memory_allocated() if device.startswith("cuda") else 0
