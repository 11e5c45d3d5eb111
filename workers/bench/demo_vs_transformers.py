"""The demo model at 16 concurrent requests: our engine beside `generate` and `generate_batch`.

All three run in this process, on one thread, in float32, greedy, to 64 tokens each, and their
answers must be equal. They take turns, in another order every round. `generate` gets the 16
requests as one left-padded batch, its best case: all answers have the same length.
`generate_batch` has no images, hence the text workload alone.

Two figures each: tokens per second of wall-clock, and per second of this process's own CPU time,
which on a shared machine does not depend on the neighbours' work.

    cd workers/bench && python demo_vs_transformers.py --json results/demo_vs_transformers.json
"""

import argparse
import contextlib
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from result_file import conditions, write_result
from transformers import AutoImageProcessor, GenerationConfig, Qwen3VLForConditionalGeneration
from transformers_peers import NEVER, as_qwen3, continuous_batching, image_inputs, left_padded

from epidote_core.generation import GenerateRequest, MediaPixels, MediaSpan
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_loadgen.pictures import draw, sample_scene

CONCURRENCY = 16
NUM_TOKENS = 64
OURS = "epidote"
Answers = list[list[int]]


@dataclass(frozen=True)
class Prompt:
    token_ids: tuple[int, ...]
    media: tuple[MediaSpan, ...]
    pixels: tuple[MediaPixels, ...]


@dataclass
class Rates:
    """Tokens per second of each round."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def make_prompts(
    processor: PromptProcessor, rng: random.Random, *, with_images: bool
) -> list[Prompt]:
    made = []
    for _ in range(CONCURRENCY):
        pixels: tuple[MediaPixels, ...] = ()
        text = f"What is {rng.randrange(10)} plus {rng.randrange(10)}?"
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if with_images:
            pixels = (processor.prepare_image(draw(sample_scene(rng)), f"{rng.random()}"),)
            content = [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]
        rendered = processor.render_chat([{"role": "user", "content": content}], media=pixels)
        made.append(Prompt(tuple(rendered.token_ids), tuple(rendered.media), pixels))
    return made


class Runs:
    """The competitors. Each takes a round's prompts; what can be prepared is, outside the clock."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        spec = load_model_spec("demo")
        self.processor = PromptProcessor.from_model("demo")
        self._engine = Engine(
            EngineConfig(
                model="demo", dtype="float32", num_kv_blocks=1024, max_num_seqs=CONCURRENCY
            )
        )
        self._model = Qwen3VLForConditionalGeneration.from_pretrained(
            spec.path, dtype=torch.float32
        ).eval()
        self._images = AutoImageProcessor.from_pretrained(spec.path)
        self._pad = self._model.config.text_config.pad_token_id or 0
        self._batched = stack.enter_context(continuous_batching(as_qwen3(self._model), self._pad))

    def ready(self, name: str, prompts: list[Prompt], tag: str) -> Callable[[], Answers]:
        """`name`'s run of these prompts; `tag` parts the rounds in our prefix cache."""
        match name:
            case "generate":
                return self._generate(prompts)
            case "generate_batch":
                tokens = [prompt.token_ids for prompt in prompts]
                return lambda: self._batched(tokens, NUM_TOKENS)
            case _:
                return self._ours(prompts, tag)

    def _ours(self, prompts: list[Prompt], tag: str) -> Callable[[], Answers]:
        sampling = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
        requests = [
            GenerateRequest(
                request_id=f"{tag}-{number}",
                prompt_token_ids=prompt.token_ids,
                media=prompt.media,
                sampling=sampling,
                cache_salt=tag,  # each round computes its prompts anew, as the peers do
            )
            for number, prompt in enumerate(prompts)
        ]
        pixels = [medium for prompt in prompts for medium in prompt.pixels]

        def run() -> Answers:
            answers = serve(self._engine, requests, pixels)
            return [answers[request.request_id, 0].token_ids for request in requests]

        return run

    def _generate(self, prompts: list[Prompt]) -> Callable[[], Answers]:
        ids, mask = left_padded([prompt.token_ids for prompt in prompts], self._pad)
        media = [medium for prompt in prompts for medium in prompt.pixels]
        extra = image_inputs(self._images, media)
        if media:
            extra["mm_token_type_ids"] = (ids == self._model.config.image_token_id).int()
        greedy = GenerationConfig(
            max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=NEVER, pad_token_id=self._pad
        )

        def run() -> Answers:
            out = self._model.generate(
                input_ids=ids, attention_mask=mask, generation_config=greedy, **extra
            )
            return [row[ids.shape[1] :].tolist() for row in out]

        return run


def compare(
    runs: Runs, names: list[str], rng: random.Random, *, rounds: int, with_images: bool
) -> dict[str, Any]:
    """Rounds of everybody, after one to warm up.

    Raises:
        RuntimeError: two of them answer differently.
    """
    rates = {name: Rates() for name in names}
    for turn in range(rounds + 1):
        prompts = make_prompts(runs.processor, rng, with_images=with_images)
        answers: dict[str, Answers] = {}
        for name in rng.sample(names, len(names)):
            run = runs.ready(name, prompts, f"{with_images}-{turn}")
            # no_grad, not inference_mode: `generate_batch` computes in a thread of its own
            with torch.no_grad():
                start_s, start_cpu_s = time.perf_counter(), time.process_time()
                answers[name] = run()
                wall_s = time.perf_counter() - start_s
                cpu_s = time.process_time() - start_cpu_s
            if turn:
                num_tokens = sum(map(len, answers[name]))
                rates[name].wall.append(num_tokens / wall_s)
                rates[name].cpu.append(num_tokens / cpu_s)
        for name in names:
            if answers[name] != answers[OURS]:
                raise RuntimeError(f"{name} answers differently than {OURS} in round {turn}")
    return {
        "tokens_per_s": _medians({name: rate.wall for name, rate in rates.items()}),
        "tokens_per_cpu_s": _medians({name: rate.cpu for name, rate in rates.items()}),
        "answers_compared": CONCURRENCY * (rounds + 1),
    }


def _medians(rates: dict[str, list[float]]) -> dict[str, float]:
    medians = {name: statistics.median(values) for name, values in rates.items()}
    ratios = [
        ours / max(values[turn] for name, values in rates.items() if name != OURS)
        for turn, ours in enumerate(rates[OURS])
    ]
    best = max(value for name, value in medians.items() if name != OURS)
    return {
        **{name: round(value, 1) for name, value in medians.items()},
        "ours / best of the others": round(medians[OURS] / best, 2),
        "the same in the worst round": round(min(ratios), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    print(f"# seed {options.seed}", file=sys.stderr)
    torch.set_num_threads(1)
    report: dict[str, Any] = {
        **conditions("torch", "transformers"),
        "threads": 1,
        "dtype": "float32",
        "concurrency": CONCURRENCY,
        "new_tokens": NUM_TOKENS,
        "rounds": options.rounds,
        "seed": options.seed,
    }
    with contextlib.ExitStack() as stack:
        runs = Runs(stack)
        rng = random.Random(options.seed)
        for workload, names, with_images in (
            ("text", [OURS, "generate", "generate_batch"], False),
            ("one image each", [OURS, "generate"], True),
        ):
            report[workload] = compare(
                runs, names, rng, rounds=options.rounds, with_images=with_images
            )
    print(json.dumps(report, indent=2))
    if options.json:
        write_result(options.json, report)


if __name__ == "__main__":
    main()
