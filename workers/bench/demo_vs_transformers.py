"""The demo model at 16 concurrent requests: our engine beside `generate` and `generate_batch`.

All three run in this process, on one thread, in fp32, in alternating rounds; each figure is the
median of its rounds. `generate` gets the 16 requests as one left-padded batch, its best case: all
have the same length of answer. `generate_batch` has no images, hence the text workload alone.

    python workers/bench/demo_vs_transformers.py --rounds 5 --json out.json
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, GenerationConfig, Qwen3VLForConditionalGeneration

from epidote_core.generation import GenerateRequest, MediaPixels
from epidote_core.sampling import SamplingParams
from epidote_engine.config import load_model_spec
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.events import MediaReady, TokensOut
from epidote_engine.processing import PromptProcessor
from epidote_loadgen.pictures import draw, sample_scene

CONCURRENCY = 16
NUM_TOKENS = 64
Prompt = tuple[tuple[int, ...], tuple[Any, ...], tuple[MediaPixels, ...]]


def prompts(processor: PromptProcessor, rng: random.Random, *, with_images: bool) -> list[Prompt]:
    made: list[Prompt] = []
    for _ in range(CONCURRENCY):
        pixels: tuple[MediaPixels, ...] = ()
        text = f"What is {rng.randrange(10)} plus {rng.randrange(10)}?"
        content: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if with_images:
            scene = sample_scene(rng)
            pixels = (processor.prepare_image(draw(scene), f"{rng.random()}"),)
            content = [{"type": "image"}, {"type": "text", "text": "Describe the picture."}]
        rendered = processor.render_chat([{"role": "user", "content": content}], media=pixels)
        made.append((tuple(rendered.token_ids), tuple(rendered.media), pixels))
    return made


def run_ours(engine: Engine, work: list[Prompt], tag: str) -> list[list[int]]:
    """All requests at once; steps until every answer is complete."""
    sampling = SamplingParams(max_tokens=NUM_TOKENS, temperature=0.0, ignore_eos=True)
    for number, (tokens, media, pixels) in enumerate(work):
        for medium in pixels:
            engine.submit_media(medium)
        engine.add(
            GenerateRequest(
                request_id=f"{tag}-{number}",
                prompt_token_ids=tokens,
                media=media,
                sampling=sampling,
                cache_salt=tag,  # each round computes its prompts anew, as the peers do
            )
        )
    answers: dict[str, list[int]] = {}
    while engine.has_work():
        for event in engine.step():
            if isinstance(event, TokensOut):
                for chunk in event.chunks:
                    answers.setdefault(event.request_id, []).extend(chunk.token_ids)
            elif not isinstance(event, MediaReady):
                raise RuntimeError(event)
    return [answers[f"{tag}-{number}"] for number in range(len(work))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=random.randrange(2**31))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    print(f"# seed {options.seed}", file=sys.stderr)
    torch.set_num_threads(1)
    spec = load_model_spec("demo")
    processor = PromptProcessor.from_model("demo")
    engine = Engine(EngineConfig(model="demo", num_kv_blocks=1024, max_num_seqs=CONCURRENCY))
    model = Qwen3VLForConditionalGeneration.from_pretrained(spec.path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(spec.path)
    pad = tokenizer.pad_token_id or 0
    greedy = GenerationConfig(
        max_new_tokens=NUM_TOKENS, min_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=pad
    )

    def generate(work: list[Prompt], tag: str) -> list[list[int]]:
        width = max(len(tokens) for tokens, _, _ in work)
        ids = torch.tensor([[pad] * (width - len(t)) + list(t) for t, _, _ in work])
        mask = torch.tensor([[0] * (width - len(t)) + [1] * len(t) for t, _, _ in work])
        extra: dict[str, Any] = {}
        if any(pixels for _, _, pixels in work):
            extra = hf_images(model, [medium for _, _, pixels in work for medium in pixels], ids)
        out = model.generate(input_ids=ids, attention_mask=mask, generation_config=greedy, **extra)
        return [row[width:].tolist() for row in out]

    def generate_batch(work: list[Prompt], tag: str) -> list[list[int]]:
        from transformers import ContinuousBatchingConfig

        out = text_model.generate_batch(
            [list(tokens) for tokens, _, _ in work],
            generation_config=GenerationConfig(
                max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=-1, pad_token_id=pad
            ),
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=512, max_batch_tokens=2048
            ),
            progress_bar=False,
        )
        return [list(result.generated_tokens) for result in out.values()]

    text_model = as_qwen3(model)
    report: dict[str, dict[str, float]] = {}
    for name, with_images in (("text", False), ("one image each", True)):
        rng = random.Random(options.seed)
        runs: dict[str, Callable[[list[Prompt], str], list[list[int]]]] = {
            "epidote": lambda work, tag: run_ours(engine, work, tag),
            "generate": generate,
        }
        if not with_images:
            runs["generate_batch"] = generate_batch
        rates: dict[str, list[float]] = {run: [] for run in runs}
        for turn in range(options.rounds + 1):
            work = prompts(processor, rng, with_images=with_images)
            for run, function in runs.items():
                start_s = time.perf_counter()
                with (
                    torch.no_grad()
                ):  # `generate_batch` works in a thread that inference tensors can't enter
                    answers = function(work, f"{name}-{turn}")
                seconds = time.perf_counter() - start_s
                if turn:  # the first is a warm-up
                    rates[run].append(sum(map(len, answers)) / seconds)
        report[name] = {run: statistics.median(values) for run, values in rates.items()}
        best = max(rate for run, rate in report[name].items() if run != "epidote")
        report[name]["ours / best of the others"] = report[name]["epidote"] / best
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report))


def hf_images(model: Any, media: list[MediaPixels], ids: torch.Tensor) -> dict[str, Any]:
    """The keyword arguments that transformers wants for these pictures."""
    from PIL import Image
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(model.config._name_or_path)
    images = [Image.frombytes("RGB", (m.width, m.height), m.data) for m in media]
    batch = processor(images=images, return_tensors="pt", do_resize=False)
    types = (ids == model.config.image_token_id).int()
    return {**batch, "mm_token_type_ids": types}


def as_qwen3(model: Any) -> Any:
    """The demo model's language half as a plain text model, which `generate_batch` can run.

    On text the three position axes are equal, so plain rotary embedding computes the same.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    text = model.config.text_config
    rope = {k: v for k, v in (text.rope_parameters or {}).items() if not k.startswith("mrope")}
    fields = {
        key: value
        for key, value in text.to_dict().items()
        if key not in ("model_type", "rope_parameters", "architectures")
    }
    twin = Qwen3ForCausalLM(Qwen3Config(**fields, rope_parameters=rope)).eval()
    weights = {f"model.{k}": v for k, v in model.model.language_model.state_dict().items()}
    weights["lm_head.weight"] = model.lm_head.weight
    twin.load_state_dict(weights)
    return twin


if __name__ == "__main__":
    main()
