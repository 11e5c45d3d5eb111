"""Examine the stored demo model on pictures and questions it has never seen.

    python workers/training/evaluate.py --questions 200

Every picture goes the way of a client's: encoded as PNG, JPEG or WebP, decoded, cut by the stored
image processor. Every question goes through the stored chat template, alone or as a later turn,
with and without a system message. Replies are decoded greedily by plain transformers, in float32
from the stored weights, and must equal the answer. The table goes to stdout.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
from lessons import SYSTEM_PROMPTS
from PIL import Image
from recipe import MODEL_DIR
from transformers import (
    AutoImageProcessor,
    AutoTokenizer,
    PreTrainedTokenizerFast,
    Qwen3VLForConditionalGeneration,
)

from epidote_loadgen.pictures import (
    ImageFormat,
    Scene,
    decode,
    draw,
    encode,
    sample_scene,
    sample_size,
)
from epidote_loadgen.questions import Question, QuestionType, ask

BATCH = 40


@dataclass(frozen=True, kw_only=True)
class Exam:
    """A conversation that ends in a question, its pictures, and the right reply."""

    messages: list[dict[str, Any]]
    pictures: list[Image.Image]
    question: Question
    turns: int


def write_exam(kind: QuestionType, rng: Random, *, max_items: int) -> Exam:
    """One exam of that family, drawn from `rng`."""
    while True:
        num_scenes = 0
        if kind.needs_pictures:
            num_scenes = rng.choice((2, 2, 3)) if kind.needs_several_pictures else 1
        scenes = [
            sample_scene(
                rng,
                max_items=max_items if num_scenes == 1 else min(4, max_items),
                size_px=sample_size(rng, max_px=320 if rng.random() < 0.8 else 640),
            )
            for _ in range(num_scenes)
        ]
        question = ask(kind, scenes, rng)
        if question is not None:
            return _converse(scenes, question, rng)


def _converse(scenes: Sequence[Scene], question: Question, rng: Random) -> Exam:
    turns = rng.choice((1, 1, 1, 2, 3))
    said = []
    while len(said) < turns - 1:
        earlier = (
            ask(rng.choice(tuple(QuestionType)[:11]), scenes, rng)
            if len(scenes) == 1
            else (
                ask(QuestionType.IN_PICTURE, scenes, rng)
                if scenes
                else ask(QuestionType.ARITHMETIC, scenes, rng)
            )
        )
        if earlier is not None:
            said.append(earlier)
    messages: list[dict[str, Any]] = []
    if rng.random() < 0.3:
        messages.append({"role": "system", "content": rng.choice(SYSTEM_PROMPTS)})
    for turn, asked in enumerate([*said, question]):
        content: list[dict[str, Any]] = [{"type": "text", "text": asked.text}]
        if turn == 0:
            shown = [{"type": "image"} for _ in scenes]
            content = [*shown, *content] if rng.random() < 0.5 else [*content, *shown]
        messages.append({"role": "user", "content": content})
        if turn < len(said):
            messages.append({"role": "assistant", "content": asked.answer})
    pictures = []
    for scene in scenes:
        image_format = rng.choice(tuple(ImageFormat))
        pictures.append(decode(encode(draw(scene), image_format, quality=rng.randint(75, 95))))
    return Exam(messages=messages, pictures=pictures, question=question, turns=turns)


class Pupil:
    """The stored model, with everything it takes to answer. Reads `directory` only."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(directory)
        self.processor = AutoImageProcessor.from_pretrained(directory)
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(
            directory, dtype=torch.float32
        ).eval()

    @torch.no_grad()
    def answer(self, exams: Sequence[Exam]) -> list[str]:
        """Greedy replies, up to 80 tokens, to a padded batch."""
        pad = self.tokenizer.convert_tokens_to_ids("<|image_pad|>")
        pictures = [picture for exam in exams for picture in exam.pictures]
        inputs: dict[str, Any] = {}
        if pictures:
            inputs = dict(self.processor(images=pictures, return_tensors="pt"))
            merged = inputs["image_grid_thw"].prod(-1) // self.processor.merge_size**2
            tokens = iter(merged.tolist())
        rows = []
        for exam in exams:
            text = self.tokenizer.apply_chat_template(
                exam.messages, tokenize=False, add_generation_prompt=True
            )
            row: list[int] = []
            for token in self.tokenizer.encode(text, add_special_tokens=False):
                row += [token] * (next(tokens) if token == pad else 1)
            rows.append(row)
        longest = max(map(len, rows))
        empty = self.tokenizer.pad_token_id
        ids = torch.tensor([[empty] * (longest - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows])
        out = self.model.generate(
            input_ids=ids,
            attention_mask=mask,
            mm_token_type_ids=(ids == pad).int(),
            max_new_tokens=80,
            **inputs,
        )
        return self.tokenizer.batch_decode(out[:, longest:], skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--questions", type=int, default=200, help="of each family")
    parser.add_argument("--max-items", type=int, default=6, help="in a picture")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mistakes", type=int, default=0, help="show so many of each family")
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    pupil = Pupil(settings.model_dir)
    started_s = time.monotonic()
    print(settings, file=sys.stderr)
    print("| question | asked | exact |\n|---|---|---|")
    total = 0
    for kind in QuestionType:
        # training draws from seeds that begin with "train:" or "look:"
        rng = Random(f"heldout:{settings.seed}:{kind}")
        exams = [
            write_exam(kind, rng, max_items=settings.max_items) for _ in range(settings.questions)
        ]
        right = 0
        wrong: list[str] = []
        for start in range(0, len(exams), BATCH):
            part = exams[start : start + BATCH]
            for exam, reply in zip(part, pupil.answer(part), strict=True):
                if reply == exam.question.answer:
                    right += 1
                else:
                    wrong.append(
                        f"{exam.question.text!r}: {reply!r}, not {exam.question.answer!r}"
                        f" ({len(exam.pictures)} pictures, {exam.turns} turns)"
                    )
        total += right
        print(f"| {kind} | {len(exams)} | {right / len(exams):.3f} |", flush=True)
        for line in wrong[: settings.mistakes]:
            print("  ", line)
    asked = settings.questions * len(QuestionType)
    print(f"| all | {asked} | {total / asked:.3f} |")
    print(f"{time.monotonic() - started_s:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
