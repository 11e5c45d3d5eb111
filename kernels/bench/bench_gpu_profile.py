"""This device's real costs as the planner's profile file: encode, prefill, decode over sizes.

    python kernels/bench/bench_gpu_profile.py --out loadgen/epidote_loadgen/simulate/profiles/X.json

Times are the engine's, end to end, with random weights of an 8B vision-language model; each shape
of `epidote_planner.performance` is fitted to them by least squares without negative costs. Plans
and simulations then run on this device's figures: `epidote-loadgen simulate --profile FILE`. What
was measured lies in a file beside it, which is there too if the time was up before the end.
"""

import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch
from bench_models import save_vision_model
from device_limits import conditions, device_name, measure_limits, progress
from engine_cases import engine_of, picture, request_of
from recording import Deadline, Recording, number_type, parsed, parser, path_of

from epidote_engine.engine import Engine
from epidote_engine.events import MediaReady, TokensOut
from epidote_engine.processing import PromptProcessor

REAL = {
    "pictures": ((1, 512), (4, 512), (1, 1024), (4, 1024)),
    "prompts": (64, 512, 2048, 8192, 16384),
    "decodes": ((1, 512), (16, 512), (64, 512), (16, 4096), (64, 4096)),
    "step": 2048,
}
TOY = {
    "pictures": ((1, 32), (2, 32), (2, 64)),
    "prompts": (4, 20, 60),
    "decodes": ((1, 8), (3, 8), (3, 40)),
    "step": 64,
}


def fitted(columns: list[list[float]], times_s: list[float]) -> list[float]:
    """Non-negative factors of the columns that come nearest to the times, relatively.

    A factor that would be negative is zero, and the others are fitted anew.

    >>> [round(x, 6) for x in fitted([[1, 1, 1], [1, 2, 3], [9, 1, 5]], [5.0, 7.0, 9.0])]
    [3.0, 2.0, 0.0]
    """
    matrix, wanted = np.array(columns, float).T, np.array(times_s)
    weight = 1 / wanted[:, None]
    kept = list(range(matrix.shape[1]))
    while kept:
        found, *_ = np.linalg.lstsq(matrix[:, kept] * weight, np.ones(len(wanted)), rcond=None)
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    factors = [0.0] * matrix.shape[1]
    for index, factor in zip(kept, found if kept else (), strict=True):
        factors[index] = float(factor)
    return factors


class OutOfTime(RuntimeError):
    """The profile is not whole."""


@dataclass(frozen=True)
class Points:
    """What was measured, written when it is."""

    recording: Recording
    deadline: Deadline

    def begin(self, what: str) -> None:
        """
        Raises:
            OutOfTime: nothing more may be begun.
        """
        if not self.deadline.leaves():
            raise OutOfTime(f"no time was left for {what}")

    def add(self, kind: str, point: tuple[float, ...]) -> None:
        points = self.recording.result["points"].setdefault(kind, [])
        points.append(point)
        self.recording.keep()
        progress(f"{kind} {point}")


def encode_times(
    engine: Engine, processor: PromptProcessor, sizes: Any, rounds: int, found: Points
) -> list[tuple[int, int, float]]:
    """(images, tokens, seconds) of one batch."""
    lines, seed = [], 0
    for count, side in sizes:
        found.begin(f"{count} pictures of {side} pixels")
        times, tokens = [], 0
        for _ in range(rounds + 1):
            media = [picture(processor, side, seed + n) for n in range(count)]
            seed += count
            tokens = sum(pixels.num_tokens for pixels in media)
            start_s = time.perf_counter()
            for pixels in media:
                engine.submit_media(pixels)
            ready = 0
            while ready < count:
                ready += sum(isinstance(event, MediaReady) for event in engine.step())
            times.append(time.perf_counter() - start_s)
        lines.append((count, tokens, statistics.median(times[1:])))
        found.add("encode", lines[-1])
    return lines


def prefill_times(
    engine: Engine, lengths: Any, rounds: int, found: Points
) -> list[tuple[int, float]]:
    """(tokens, seconds) until the first token."""
    rng, lines = Random(1), []
    for length in lengths:
        found.begin(f"a prompt of {length} tokens")
        times = []
        for turn in range(rounds + 1):
            start_s = time.perf_counter()
            engine.add(request_of(rng, f"prefill-{length}-{turn}", length, 1))
            while engine.has_work():
                engine.step()
            times.append(time.perf_counter() - start_s)
        lines.append((length, statistics.median(times[1:])))
        found.add("prefill", lines[-1])
    return lines


def decode_times(
    engine: Engine, sizes: Any, steps: int, found: Points
) -> list[tuple[int, int, float]]:
    """(sequences, tokens they hold in sum, seconds) of a step."""
    rng, lines = Random(2), []
    for count, length in sizes:
        found.begin(f"{count} sequences of {length} tokens")
        names = [f"decode-{count}-{length}-{n}" for n in range(count)]
        for name in names:
            engine.add(request_of(rng, name, length, steps + 6))
        began: set[str] = set()
        while len(began) < count:
            began |= {e.request_id for e in engine.step() if isinstance(e, TokensOut)}
        times = []
        for _ in range(steps):
            start_s = time.perf_counter()
            if not engine.step():
                break
            times.append(time.perf_counter() - start_s)
        while engine.has_work():
            engine.step()
        held = count * (length + steps // 2)
        lines.append((count, held, statistics.median(times or [1e-9])))
        found.add("decode", lines[-1])
    return lines


def profile_of(
    engine: Engine, processor: PromptProcessor, sizes: dict[str, Any], found: Points, *, toy: bool
) -> dict[str, Any]:
    """The profile's fields. Raises OutOfTime."""
    rounds, steps = (1, 4) if toy else (5, 40)
    encodes = encode_times(engine, processor, sizes["pictures"], rounds, found)
    prefills = prefill_times(engine, sizes["prompts"], rounds, found)
    decodes = decode_times(engine, sizes["decodes"], steps, found)
    step = sizes["step"]
    encode = fitted(
        [[1.0] * len(encodes), [e[0] for e in encodes], [e[1] for e in encodes]],
        [e[2] for e in encodes],
    )
    prefill = fitted(
        [[-(-n // step) for n, _ in prefills], [n for n, _ in prefills],
         [n * n / 2 for n, _ in prefills]],
        [taken_s for _, taken_s in prefills],
    )  # fmt: skip
    decode = fitted(
        [[1.0] * len(decodes), [d[0] for d in decodes], [d[1] for d in decodes]],
        [d[2] for d in decodes],
    )
    pool = engine.kv_pool
    return {
        "encode": {"base_s": encode[0], "per_image_s": encode[1], "per_token_s": encode[2]},
        "prefill": {"base_s": prefill[0], "per_token_s": max(prefill[1], 1e-12),
                    "per_pair_s": prefill[2], "max_tokens": step},
        "decode": {"base_s": max(decode[0], 1e-9), "per_sequence_s": decode[1],
                   "per_context_token_s": decode[2], "max_sequences": engine.config.max_num_seqs,
                   "kv_tokens": pool.num_blocks * pool.block_size},
    }  # fmt: skip


def main(given: list[str]) -> int:
    """0; 1 if the time was up: then there are points only."""
    chosen = parsed(parser(__doc__.splitlines()[0]), given)
    deadline = Deadline.after(chosen.minutes)
    sizes: dict[str, Any] = dict(TOY if chosen.toy else REAL)
    dtype = number_type(chosen.device)
    limits = measure_limits(chosen.device, dtype, toy=chosen.toy)
    told = conditions(chosen.device, dtype, limits, toy=chosen.toy)
    out = path_of(told, chosen.out, "-profile")
    points = Recording({**told, "points": {}}, out.with_name(f"{out.stem}-points.json"))
    with tempfile.TemporaryDirectory() as folder:
        path = save_vision_model(Path(folder), toy=chosen.toy)
        engine = engine_of(
            path, chosen.device, num_kv_blocks=200 if chosen.toy else None, max_num_seqs=64,
            max_batched_tokens=sizes["step"], chunk_tokens=sizes["step"], num_media_rows=16384,
        )  # fmt: skip
        processor = PromptProcessor.from_model(path)
        try:
            with torch.inference_mode():
                profile = profile_of(
                    engine, processor, sizes, Points(points, deadline), toy=chosen.toy
                )
        except OutOfTime as late:
            progress(f"{late}: no profile; {points.path.name} has what was measured")
            return 1
    name = f"qwen3-vl-8b-{device_name(chosen.device)}".lower().replace(" ", "-")
    kind = "TOY: " if chosen.toy else ""
    profile = {
        "name": name,
        "provenance": f"{kind}Measured by kernels/bench/bench_gpu_profile.py on {told['device']}, "
        f"{told['date']}, {told['dtype']}, torch {told['versions']['torch']}, random weights in "
        "the shapes of Qwen3-VL-8B; transfer and switches are not measured here.",
        **profile,
    }
    Recording(profile, out).keep()
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
