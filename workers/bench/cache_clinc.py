"""This file is about how often the cache may answer on CLINC150, and how often wrongly.

Half of the questions are cached, the other half asked, then the other way round; same intent = same
answer, out-of-scope questions must miss. Thresholds and projection come from `calibrate` on other
splits. Beside it one global threshold, and GPTCache, on the same vectors in the same run.

    python workers/bench/cache_clinc.py --data ../shared/data/clinc150 \\
        --out workers/bench/results --gptcache-python VENV/bin/python  # see cache_peer_gptcache.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from epidote_gateway.cache.meaning.calibration import (
    Calibration,
    Wanted,
    calibrate,
    embedded,
    stored,
)
from epidote_gateway.cache.meaning.classifier import ExemplarClassifier
from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.meaning.labelled_questions import Question, read_labelled
from epidote_gateway.cache.meaning.model_files import MINILM
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.meaning.thresholds import least_threshold, outside_floor
from epidote_gateway.cache.meaning.trials import Embedded, Trials, ask, halves, joined
from epidote_gateway.cache.policy import ClassifierSpec, Guard, GuardsSpec, Precision
from epidote_gateway.cache.protocols import Vectors

TUNE, TEST = ("train", "oos_train", "oos_val"), ("val", "test", "oos_test")
PEER = Path(__file__).with_name("cache_peer_gptcache.py")
VALUES = (
    Guard.NUMBERS,
    Guard.DATES,
    Guard.UNITS,
    Guard.NEGATION,
    Guard.LANGUAGE,
    Guard.CODE,
)


@dataclass(frozen=True, kw_only=True)
class Way:
    """One way to keep and judge vectors."""

    name: str
    projection: str = ""
    dimensions: int = 384
    precision: Precision = Precision.FLOAT32
    guards: tuple[Guard, ...] = ()

    @property
    def bytes_per_vector(self) -> int:
        return self.dimensions * {"Float32": 4, "Float16": 2, "Int8": 1}[self.precision.value]


WAYS = (
    Way(name="MiniLM as it is"),
    Way(name="discriminants, 128 x float32", projection="discriminants", dimensions=128),
    Way(
        name="discriminants, 128 x int8",
        projection="discriminants",
        dimensions=128,
        precision=Precision.INT8,
    ),
    Way(name="PCA, 128 x float32", projection="principal", dimensions=128),
    Way(name="PCA, 128 x int8", projection="principal", dimensions=128, precision=Precision.INT8),
    Way(
        name="discriminants, 128 x float32, guards of values",
        projection="discriminants",
        dimensions=128,
        guards=VALUES,
    ),
    Way(
        name="discriminants, 128 x float32, all guards",
        projection="discriminants",
        dimensions=128,
        guards=tuple(Guard),
    ),
)


@dataclass(frozen=True, kw_only=True)
class Data:
    tune: Sequence[Question]
    tune_vectors: Vectors
    test: Sequence[Question]
    test_vectors: Vectors
    model: str


def load(directory: Path, vectors_file: Path | None) -> Data:
    def questions(splits: Sequence[str]) -> Sequence[Question]:
        data, domains = directory / "data_full.json", directory / "domains.json"
        return read_labelled(data, categories=domains, splits=splits).questions

    model = SentenceModel(MINILM, max_tokens=256)
    tune, test = questions(TUNE), questions(TEST)
    texts = [question.text for question in (*tune, *test)]
    if vectors_file is not None and vectors_file.exists():
        with np.load(vectors_file) as file:
            vectors, name = file["vectors"], str(file["model"])
        if name != model.name or len(vectors) != len(texts):
            raise SystemExit(f"{vectors_file}: of {name}, wanted {len(texts)} of {model.name}")
    else:
        begun = time.process_time()
        vectors = model.embed(texts)
        each_ms = 1e3 * (time.process_time() - begun) / len(texts)
        print(f"# {len(texts)} texts embedded, {each_ms:.1f} ms of CPU each", file=sys.stderr)
        if vectors_file is not None:
            np.savez(vectors_file, vectors=vectors, model=np.array(model.name))
    return Data(
        tune=tune,
        tune_vectors=vectors[: len(tune)],
        test=test,
        test_vectors=vectors[len(tune) :],
        model=model.name,
    )


def folds(test: Sequence[Question], seed: int) -> list[tuple[list[int], list[int]]]:
    """(cached, asked) twice; out-of-scope questions are asked both times."""
    first, second = halves(test, Random(seed))
    outside = [place for place, question in enumerate(test) if question.answer is None]
    return [(first, second + outside), (second, first + outside)]


def played(way: Way, data: Data, seed: int) -> tuple[Calibration, Trials]:
    guards = WordGuards(GuardsSpec(), way.guards) if way.guards else None
    wanted = Wanted(projection=way.projection, dimensions=way.dimensions, exemplars=300)
    found = calibrate(
        data.tune,
        data.tune_vectors,
        wanted=wanted,
        guards=guards,
        model=data.model,
        seed=seed,
        precision=way.precision,
    )

    def kept(vectors: Vectors) -> Vectors:
        return stored(found.projection(vectors) if found.projection else vectors, way.precision)

    row_of = {question.text: place for place, question in enumerate(data.tune)}
    exemplars = {
        name: kept(data.tune_vectors[[row_of[text] for text in texts]])
        for name, texts in found.exemplars.items()
    }
    classifier = ExemplarClassifier(exemplars, ClassifierSpec())
    known = embedded(data.test, kept(data.test_vectors), classifier)
    parts = [
        ask(known.at(asked), known.at(cached), guards) for cached, asked in folds(data.test, seed)
    ]
    return found, joined(parts)


def figures(trials: Trials, threshold_of: Callable[[str], float | None]) -> dict[str, Any]:
    """Precision and hit ratio of questions in scope, per category too; false hits of the others."""
    categories = {}
    served = np.zeros(len(trials), np.bool_)
    for name in sorted(set(trials.category)):
        threshold = threshold_of(str(name))
        here = trials.category == name
        hits = here & (trials.similarity >= threshold if threshold is not None else False)
        served |= hits
        inside = hits & ~trials.is_outside
        num_asked = int((here & ~trials.is_outside).sum())
        categories[str(name)] = {
            "threshold": threshold,
            "asked": num_asked,
            "hit_ratio": float(inside.sum() / max(1, num_asked)),
            "precision": float(trials.is_right[inside].mean()) if inside.any() else None,
            "outside_hits": int((hits & trials.is_outside).sum()),
        }
    inside = served & ~trials.is_outside
    enabled = [
        found["precision"] for found in categories.values() if found["precision"] is not None
    ]
    return {
        "hit_ratio": float(inside.sum() / (~trials.is_outside).sum()),
        "precision": float(trials.is_right[inside].mean()) if inside.any() else None,
        "worst_category_precision": min(enabled, default=None),
        "outside_hit_ratio": float((served & trials.is_outside).sum() / trials.is_outside.sum()),
        "categories": categories,
    }


def one_global(data: Data, seed: int) -> tuple[Trials, float, float]:
    """Without categories: the trials, the threshold of 95 % overall, and that with the floor."""
    everything = ["all"] * len(data.tune)
    known = Embedded(questions=data.tune, vectors=data.tune_vectors, categories=everything)
    tuned = joined([ask(known.at(a), known.at(c), None) for c, a in folds(data.tune, seed)])
    inside = tuned.where(~tuned.is_outside)
    plain = least_threshold(inside, precision=0.95, confidence=0.95).value or 1.0
    outside = tuned.similarity[tuned.is_outside]
    floor, _ = outside_floor(outside[: len(outside) // 2], share=0.01, confidence=0.95)
    everything = ["all"] * len(data.test)
    known = Embedded(questions=data.test, vectors=data.test_vectors, categories=everything)
    trials = joined([ask(known.at(a), known.at(c), None) for c, a in folds(data.test, seed)])
    return trials, plain, max(plain, floor)


def with_categories(trials: Trials, names: Sequence[str]) -> Trials:
    """The same trials counted by the questions' true categories."""
    return Trials(
        similarity=trials.similarity,
        is_right=trials.is_right,
        category=np.array(names),
        is_outside=trials.is_outside,
    )


def gptcache(
    python: str, data: Data, seed: int, cosines: Sequence[float], num_asked: int
) -> dict[str, Any]:
    """GPTCache's figures by its threshold; it serves where (1 + cosine) / 2 reaches it."""
    cached, asked = folds(data.test, seed)[0]
    if num_asked:
        asked = Random(seed).sample(asked, num_asked)
    thresholds = [0.8, *(round((1 + cosine) / 2, 4) for cosine in cosines)]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "vectors.npz"
        vectors = data.test_vectors
        np.savez(path, cached=vectors[cached], asked=vectors[asked])
        command = [python, str(PEER), str(path), *map(str, thresholds)]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=directory)
    found = json.loads(next(line for line in ran.stdout.splitlines() if line.startswith("{")))
    figures_of = {}
    for threshold, served in found["served"].items():
        answers = [data.test[cached[place]].answer if place >= 0 else None for place in served]
        trials = Trials(
            similarity=np.array([1.0 if place >= 0 else -1.0 for place in served], np.float32),
            is_right=np.array(
                [
                    answer is not None and answer == data.test[place].answer
                    for place, answer in zip(asked, answers, strict=True)
                ]
            ),
            category=np.array([data.test[place].category for place in asked]),
            is_outside=np.array([data.test[place].answer is None for place in asked]),
        )
        figures_of[threshold] = figures(trials, lambda name: 0.0)
    return {"put_ms": found["put_ms"], "get_ms": found["get_ms"], "thresholds": figures_of}


def row(name: str, found: dict[str, Any], num_bytes: int | str) -> str:
    def percent(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    return (
        f"| {name} | {percent(found['hit_ratio'])} | {percent(found['precision'])} |"
        f" {percent(found['worst_category_precision'])} | {percent(found['outside_hit_ratio'])} |"
        f" {num_bytes} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of data_full.json")
    parser.add_argument("--out", type=Path, help="folder for cache_clinc.json and .md")
    parser.add_argument("--gptcache-python", help="interpreter with gptcache installed")
    parser.add_argument("--vectors", type=Path, help="keep the vectors here, or take them")
    parser.add_argument("--gptcache-asked", type=int, default=0, help="of them, in all; 0: all")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    data = load(given.data, given.vectors)
    results: dict[str, Any] = {"seed": given.seed, "load": os.getloadavg()[0], "ways": {}}
    lines = [
        "| way | hits | precision | worst category | out-of-scope hits | bytes a vector |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    trials, plain, floored = one_global(data, given.seed)
    true_names = [
        data.test[place].category for _, asked in folds(data.test, given.seed) for place in asked
    ]
    trials = with_categories(trials, true_names)
    for name, threshold in (("95 % overall", plain), ("and 1 % out of scope", floored)):
        found = figures(trials, lambda name, value=threshold: value)  # type: ignore[misc]
        label = f"one global threshold, {name}: {threshold:.3f}"
        results["ways"][label] = found
        lines.append(row(label, found, 1536))
    if given.gptcache_python:
        peer = gptcache(given.gptcache_python, data, given.seed, [plain], given.gptcache_asked)
        results["gptcache"] = peer
        for text, found in peer["thresholds"].items():
            lines.append(row(f"GPTCache 0.1.44, threshold {text}", found, 1536))
    for way in WAYS:
        calibration, played_trials = played(way, data, given.seed)
        thresholds = {name: found.value for name, found in calibration.thresholds.items()}
        found = figures(played_trials, thresholds.get)
        results["ways"][way.name] = found
        lines.append(row(f"per category: {way.name}", found, way.bytes_per_vector))
        print(lines[-1], file=sys.stderr, flush=True)
    best = results["ways"][WAYS[1].name]["categories"]
    lines += ["", "| category | threshold | hits | precision | out-of-scope hits |"]
    lines += ["| --- | --- | --- | --- | --- |"]
    for name, found in best.items():
        precision = "-" if found["precision"] is None else f"{100 * found['precision']:.1f} %"
        threshold = "off" if found["threshold"] is None else f"{found['threshold']:.3f}"
        lines.append(
            f"| {name} | {threshold} | {100 * found['hit_ratio']:.1f} % | {precision} |"
            f" {found['outside_hits']} |"
        )
    print("\n".join(lines))
    if given.out:
        given.out.mkdir(parents=True, exist_ok=True)
        (given.out / "cache_clinc.md").write_text("\n".join(lines) + "\n")
        (given.out / "cache_clinc.json").write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
