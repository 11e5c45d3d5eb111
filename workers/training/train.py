"""Train the demo model from nothing: first to see, then to answer.

    python workers/training/train.py --steps 4600

Two stages. The vision tower alone learns to say, token by token, what stands there; then the whole
model learns to answer, with families of questions it gets wrong asked more often. Progress goes to
stderr, a checkpoint to `--checkpoint` every `--save-every` steps, the weights (an average over the
last few hundred steps, in bfloat16) to the model directory. Started again, it goes on from the
checkpoint. Batches depend on the seed and the step alone, so equal arguments give equal weights on
one kind of machine with one number of threads, unless `--minutes` cuts the run short.

Matrices are trained with Muon (Jordan et al., 2024), everything else with AdamW.
"""

import argparse
import itertools
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from build_tokenizer import build
from lessons import KINDS, Batch, Pixels, make_batch, make_pictures
from recipe import MODEL_DIR, model_config, save_model
from torch import Tensor, nn
from torch.nn import functional
from tower import DenseHeads, Tower, as_processor_output
from transformers import AutoTokenizer, Qwen3VLForConditionalGeneration

from epidote_loadgen.questions import QuestionType

AHEAD = 6  # batches under way; also the delay, in steps, until a weak family is asked more often
WARMUP_STEPS = 100
EMA_DECAY = 0.995
PICTURES_PER_STEP = 64

# To count two kinds and compare, one must be able to count one.
BUILDS_ON = {
    QuestionType.COMPARE_COUNT: (QuestionType.COUNT,),
    QuestionType.WHICH_PICTURE: (QuestionType.EXISTS,),
    QuestionType.IN_PICTURE: (QuestionType.COLOUR_OF, QuestionType.WHERE),
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One run. Learning rates are peaks; they fall to zero over the last `decay_steps`."""

    seed: int
    steps: int
    vision_steps: int
    decay_steps: int
    rows: int
    muon_rate: float
    adam_rate: float
    dense_weight: float
    minutes: float
    threads: int
    save_every: int
    checkpoint: Path
    model_dir: Path
    device: str


def parse() -> Settings:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4600, help="of the second stage")
    parser.add_argument("--vision-steps", type=int, default=700, help="of the first stage")
    parser.add_argument("--decay-steps", type=int, default=1300)
    parser.add_argument("--rows", type=int, default=16, help="rows of tokens a step")
    parser.add_argument("--muon-rate", type=float, default=4e-3)
    parser.add_argument("--adam-rate", type=float, default=2e-3)
    parser.add_argument("--dense-weight", type=float, default=0.1)
    parser.add_argument("--minutes", type=float, default=600.0, help="stop after this long")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--checkpoint", type=Path, default=Path("demo-output/demo-model.pt"))
    parser.add_argument("--model-dir", type=Path, default=MODEL_DIR)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return Settings(**vars(parser.parse_args()))


class Optimizers:
    """Muon for the matrices inside, AdamW for the rest, under one learning-rate factor."""

    def __init__(self, model: nn.Module, heads: nn.Module, settings: Settings) -> None:
        matrices, rest = [], list(heads.parameters())
        for name, parameter in model.named_parameters():
            inside = parameter.ndim == 2 and "embed" not in name and "lm_head" not in name
            (matrices if inside else rest).append(parameter)
        self.parameters = matrices + rest
        self.all = [
            torch.optim.Muon(
                matrices,
                lr=settings.muon_rate,
                weight_decay=0.02,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(rest, lr=settings.adam_rate, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.peaks = (settings.muon_rate, settings.adam_rate)

    def step(self, factor: float) -> None:
        """Clip, update with the peak rates times `factor`, and clear the gradients."""
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        for optimizer, peak in zip(self.all, self.peaks, strict=True):
            for group in optimizer.param_groups:
                group["lr"] = peak * factor
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> list[dict[str, Any]]:
        return [optimizer.state_dict() for optimizer in self.all]

    def load_state_dict(self, states: list[dict[str, Any]]) -> None:
        for optimizer, state in zip(self.all, states, strict=True):
            optimizer.load_state_dict(state)


class Run:
    """The state of a training run, and its two stages. Every method mutates the weights."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started_s = time.monotonic()
        self.stopped = False
        signal.signal(signal.SIGTERM, self.stop)
        if settings.checkpoint.exists():
            tokenizer = AutoTokenizer.from_pretrained(settings.model_dir)
        else:
            tokenizer = build()
            tokenizer.save_pretrained(settings.model_dir)
        torch.manual_seed(settings.seed)
        model = Qwen3VLForConditionalGeneration(model_config(tokenizer))
        model.config.architectures = ["Qwen3VLForConditionalGeneration"]
        self.model = model.to(settings.device)
        self.tower = Tower(self.model)
        self.heads = DenseHeads(model.config.text_config.hidden_size).to(settings.device)
        self.optimizers = Optimizers(self.model, self.heads, settings)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.vision_step = 0
        self.step = 0
        self.trained_s = 0.0
        self.accuracy = dict.fromkeys(KINDS, 0.0)
        if settings.checkpoint.exists():
            self.load()

    def stop(self, *_: object) -> None:
        """Finish the step under way, save, and end."""
        self.stopped = True

    def load(self) -> None:
        state = torch.load(self.settings.checkpoint, map_location=self.settings.device)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        self.optimizers.load_state_dict(state["optimizers"])
        self.average = state["average"]
        self.vision_step, self.step = state["vision_step"], state["step"]
        self.trained_s = state["trained_s"]
        self.accuracy = {QuestionType(name): value for name, value in state["accuracy"].items()}

    def save(self) -> None:
        """Write the checkpoint and the averaged weights."""
        self.trained_s += time.monotonic() - self.started_s
        self.started_s += time.monotonic() - self.started_s
        self.settings.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": self.optimizers.state_dict(),
            "average": self.average,
            "vision_step": self.vision_step,
            "step": self.step,
            "trained_s": self.trained_s,
            "accuracy": {kind.value: value for kind, value in self.accuracy.items()},
        }
        partial = self.settings.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.settings.checkpoint)
        stored = Qwen3VLForConditionalGeneration(self.model.config)
        stored.load_state_dict(self.average)
        save_model(stored.to(torch.bfloat16), self.settings.model_dir)

    def out_of_time(self) -> bool:
        """Whether to stop: the minutes are over, or someone asked with SIGTERM."""
        spent_s = self.trained_s + time.monotonic() - self.started_s
        return self.stopped or spent_s > 60 * self.settings.minutes

    def learn_to_see(self, pool: ProcessPoolExecutor) -> None:
        settings = self.settings
        steps = settings.vision_steps

        def order(index: int) -> Future[list[Pixels]]:
            return pool.submit(make_pictures, settings.seed, index, PICTURES_PER_STEP)

        for pictures in _ahead(order, self.vision_step, steps):
            merged, deep, _ = self.tower.see(pictures)  # half precision is slower at this width
            loss, right = self.heads(merged, pictures)
            # the deep-stack branch learns to carry the same news
            loss = loss + 0.3 * sum(self.heads(layer, pictures)[0] for layer in deep)
            loss.backward()
            factor = min(1.0, (self.vision_step + 1) / WARMUP_STEPS)
            factor *= max(0.1, min(1.0, 2 * (1 - self.vision_step / steps)))
            self.optimizers.step(factor)
            self.vision_step += 1
            if self.vision_step % 50 == 0:
                self.report(f"see {self.vision_step:5d} loss {loss.item():.3f} right {right:.3f}")
            if self.out_of_time():
                return
        if self.step == 0:
            self.average = {name: value.clone() for name, value in self.model.state_dict().items()}

    def learn_to_answer(self, pool: ProcessPoolExecutor) -> None:
        settings = self.settings

        def order(index: int) -> Future[Batch]:
            weights = {kind: self.weight(kind) for kind in KINDS}
            return pool.submit(make_batch, settings.seed, index, settings.rows, weights)

        losses: deque[float] = deque(maxlen=50)
        for batch in _ahead(order, self.step, settings.steps):
            # half precision halves the reader's time; the tower is too narrow to gain
            seen = self.tower.see(batch.pictures) if batch.pictures else None
            with self.autocast():
                logits, labels = self.tower.read(batch, seen)
            total = loss = functional.cross_entropy(logits.float(), labels)
            if seen is not None:
                total = loss + settings.dense_weight * self.heads(seen[0], batch.pictures)[0]
            total.backward()
            self.optimizers.step(self.factor())
            self.step += 1
            losses.append(loss.item())
            self.score(batch, logits, labels)
            self.blend()
            if self.step % 25 == 0:
                table = " ".join(f"{k.name.lower()}={v:.2f}" for k, v in self.accuracy.items())
                self.report(f"answer {self.step:5d} loss {np.mean(losses):.4f} {table}")
            if self.step % settings.save_every == 0:
                self.save()
            if self.out_of_time():
                return

    def weight(self, kind: QuestionType) -> float:
        """How often to ask a family: the weaker, the more; and first what the rest builds on."""
        wrong = 1 - self.accuracy[kind]
        base = {
            QuestionType.DESCRIBE: 0.35,  # its answer is as long as six others
            QuestionType.FACT: 0.6,
            QuestionType.COMPARE_SIZE: 2.5,  # most scenes allow no such question
        }.get(kind, 1.0)
        for earlier in BUILDS_ON.get(kind, ()):
            base *= self.accuracy[earlier]
        return base * (0.05 + min(wrong, 0.6))

    def factor(self) -> float:
        """Of the peak learning rates: up, level, and down to zero at the end."""
        left = self.settings.steps - self.step
        return min(1.0, (self.step + 1) / WARMUP_STEPS, left / self.settings.decay_steps)

    @torch.no_grad()
    def blend(self) -> None:
        """Move the average towards the weights."""
        share = 1 - min(EMA_DECAY, self.step / (self.step + 10))
        state = self.model.state_dict()
        for name, value in self.average.items():
            value.lerp_(state[name], share)

    @torch.no_grad()
    def score(self, batch: Batch, logits: Tensor, labels: Tensor) -> None:
        """Update each family's running share of questions answered without a mistake."""
        right = (logits.argmax(-1) == labels).cpu().numpy()
        wanted = batch.labels[:, 1:] >= 0
        questions, kinds = batch.question[:, 1:][wanted], batch.kind[:, 1:][wanted]
        numbers, first = np.unique(questions, return_index=True)
        whole = np.array([right[questions == number].all() for number in numbers])
        for kind in range(len(KINDS)):
            of_kind = whole[kinds[first] == kind]
            if len(of_kind):
                share = 1 - 0.996 ** len(of_kind)
                name = KINDS[kind]
                self.accuracy[name] += share * (float(of_kind.mean()) - self.accuracy[name])

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.settings.device, torch.bfloat16)

    def report(self, line: str) -> None:
        spent_s = self.trained_s + time.monotonic() - self.started_s
        print(f"{spent_s:7.0f} s  {line}", file=sys.stderr, flush=True)

    @torch.no_grad()
    def check_against_transformers(self) -> None:
        """The padded tower and the plain model must see and read the same."""
        settings = self.settings
        weights = dict.fromkeys(KINDS, 1.0)
        batch = make_batch(settings.seed, -1, 4, weights)
        ids = torch.from_numpy(batch.ids).to(settings.device)
        merged, _, real = self.tower.see(batch.pictures)
        inputs = {
            name: value.to(settings.device)
            for name, value in as_processor_output(batch.pictures).items()
        }
        features = self.model.model.get_image_features(**inputs, return_dict=True)
        torch.testing.assert_close(
            merged[real], torch.cat(tuple(features.pooler_output)), rtol=1e-3, atol=1e-3
        )
        straight = [row for row in range(4) if batch.branch[row].max() == 0]
        if len(batch.pictures) and straight:
            used = torch.from_numpy(batch.branch >= 0).to(settings.device)
            types = (ids == self.model.config.image_token_id).int()
            plain = self.model(
                input_ids=ids, attention_mask=used.long(), mm_token_type_ids=types, **inputs
            ).logits
            logits, _ = self.tower.read(batch, self.tower.see(batch.pictures))
            wanted = torch.from_numpy(batch.labels[:, 1:] >= 0).to(settings.device)
            rows = wanted.nonzero()[:, 0].cpu()
            same = torch.isin(rows, torch.tensor(straight))
            torch.testing.assert_close(
                logits[same], plain[:, :-1][wanted][same], rtol=1e-3, atol=1e-3
            )
            print(f"agrees with transformers on {int(same.sum())} tokens", file=sys.stderr)


def _ahead(order: Callable[[int], "Future[Any]"], start: int, stop: int) -> Iterator[Any]:
    """Results of `order(start)`, ..., `order(stop - 1)`, each ordered AHEAD steps early."""
    pending: deque[Future[Any]] = deque()
    indices = iter(range(start, stop))
    for index in itertools.islice(indices, AHEAD):
        pending.append(order(index))
    while pending:
        yield pending.popleft().result()
        for index in itertools.islice(indices, 1):
            pending.append(order(index))


def main() -> None:
    settings = parse()
    print(settings, file=sys.stderr)
    torch.set_num_threads(settings.threads)
    run = Run(settings)
    num_parameters = sum(parameter.numel() for parameter in run.model.parameters())
    run.report(f"{num_parameters / 1e6:.2f} million parameters")
    run.check_against_transformers()
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        run.learn_to_see(pool)
        run.save()
        run.learn_to_answer(pool)
    run.save()
    run.report("done")


if __name__ == "__main__":
    main()
