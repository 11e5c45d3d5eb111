"""This file is about labelled questions becoming a policy that keeps what it promises elsewhere."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from epidote_gateway.cache.meaning.calibration import (
    Wanted,
    calibrate,
    calibrate_pairs,
    cross_trials,
    embedded,
)
from epidote_gateway.cache.meaning.classifier import ExemplarClassifier
from epidote_gateway.cache.meaning.labelled_questions import (
    BadLabels,
    LabelledPair,
    Question,
    read_labelled,
)
from epidote_gateway.cache.meaning.projection import unit_rows
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.meaning.trials import halves
from epidote_gateway.cache.policy import CachePolicy, ClassifierSpec, Guard, parse_policy
from epidote_gateway.cache.protocols import Vectors
from epidote_workers.cli import app


def world(seed: int, per_answer: int = 40) -> tuple[list[Question], Vectors]:
    """Two categories of six answers: tight clouds in `clear`, overlapping ones in `blurred`."""
    rng = np.random.default_rng(7)
    centres = rng.normal(size=(12, 24))
    centres[:6, 0] += 6.0
    centres[6:, 1] += 6.0
    rng = np.random.default_rng(seed)
    questions, rows = [], []
    for answer in range(12):
        category, width = ("clear", 0.1) if answer < 6 else ("blurred", 0.9)
        for number in range(per_answer):
            text = f"{answer} {number} {seed}"
            questions.append(Question(text=text, answer=f"a{answer}", category=category))
            rows.append(centres[answer] + rng.normal(scale=width, size=24))
    for number in range(per_answer * 5):
        questions.append(Question(text=f"oos {number}", answer=None, category="default"))
        rows.append(rng.normal(size=24) * 3)
    return questions, unit_rows(np.array(rows, np.float32))


@pytest.mark.parametrize("projection", ["", "principal", "discriminants"])
def test_precision_holds_on_questions_never_seen(projection: str) -> None:
    wanted = Wanted(projection=projection, dimensions=8)
    questions, vectors = world(0)
    found = calibrate(questions, vectors, wanted=wanted, guards=None, model="m", seed=1)
    fresh, fresh_vectors = world(1)
    project = found.projection or (lambda rows: rows)
    vector_of = dict(zip([q.text for q in questions], project(vectors), strict=True))
    classifier = ExemplarClassifier(
        {name: [vector_of[text] for text in texts] for name, texts in found.exemplars.items()},
        ClassifierSpec(),
    )
    known = embedded(fresh, project(fresh_vectors), classifier)
    inside = [place for place, question in enumerate(fresh) if question.answer]
    outside = [place for place, question in enumerate(fresh) if not question.answer]
    trials = cross_trials(known, inside, outside, None, Random(2))
    assert found.thresholds["clear"].value is not None
    served_outside = 0
    for name, threshold in found.thresholds.items():
        part = trials.of(name)
        hits = part.similarity >= (2.0 if threshold.value is None else threshold.value)
        served_outside += int((hits & part.is_outside).sum())
        if hits.any():
            assert part.is_right[hits & ~part.is_outside].mean() >= 0.93
    assert served_outside <= 0.03 * trials.is_outside.sum()
    assert found.thresholds["clear"].hit_ratio > 0.7


def test_policy_keeps_what_was_in_the_base_and_is_valid() -> None:
    base = parse_policy({"epoch": "e1", "categories": [{"name": "clear", "ttlSeconds": 60}]})
    wanted = Wanted(search_s=0.01, fetch_s=0.005, answer_s={"clear": 0.105, "default": 0.006})
    found = calibrate(*world(0), wanted=wanted, guards=None, model="m", seed=0)
    policy = parse_policy(found.policy(base))
    assert policy.epoch == "e1"
    clear = policy.category("clear")
    assert clear.ttl_seconds == 60
    assert clear.threshold == found.thresholds["clear"].value
    assert clear.break_even_hit_ratio == pytest.approx(0.1)
    assert policy.category("blurred").break_even_hit_ratio == 1.0
    assert 0 < len(clear.exemplars) <= 150


def test_a_category_that_can_not_be_precise_is_compared_exactly_only() -> None:
    questions, vectors = world(0)
    noise = np.random.default_rng(3).normal(size=vectors.shape).astype(np.float32)
    blurred = np.array([question.category == "blurred" for question in questions])
    vectors = np.where(blurred[:, None], unit_rows(vectors * 4 + noise), vectors)
    found = calibrate(
        questions, vectors, wanted=Wanted(precision=0.999), guards=None, model="m", seed=0
    )
    policy = parse_policy(found.policy(CachePolicy()))
    assert not policy.category("blurred").semantic


def test_same_seed_gives_the_same_policy() -> None:
    one, two = (
        calibrate(*world(0), wanted=Wanted(), guards=None, model="m", seed=5).policy(CachePolicy())
        for _ in range(2)
    )
    assert one == two


def test_halves_share_no_question_and_no_answer_is_left_out() -> None:
    questions, _ = world(0, per_answer=7)
    first, second = halves(questions, Random(0))
    assert not set(first) & set(second)
    assert len(first) + len(second) == 12 * 7
    for half in (first, second):
        assert {questions[place].answer for place in half} == {f"a{n}" for n in range(12)}


def test_pairs_give_thresholds() -> None:
    rng = np.random.default_rng(0)
    pairs, asked, cached = [], [], []
    for number in range(400):
        same = number % 2 == 0
        pairs.append(LabelledPair(asked="a", cached="b", is_same=same, category="faq"))
        asked.append([1.0, 0.0])
        angle = rng.uniform(0, 0.5) if same else rng.uniform(0.6, 1.2)
        cached.append([np.cos(angle), np.sin(angle)])
    found = calibrate_pairs(
        pairs,
        np.array(asked, np.float32),
        np.array(cached, np.float32),
        wanted=Wanted(),
        guards=None,
    )
    assert found.thresholds["faq"].value == pytest.approx(np.cos(0.55), abs=0.06)


def test_too_few_questions_are_refused() -> None:
    question = Question(text="a", answer="b", category="c")
    with pytest.raises(ValueError, match="wanted at least 8 questions with answers, got 1"):
        calibrate(
            [question], np.ones((1, 2), np.float32), wanted=Wanted(), guards=None, model="m", seed=0
        )


def test_three_forms_of_files_are_read(tmp_path: Path) -> None:
    clinc, domains = tmp_path / "data.json", tmp_path / "domains.json"
    clinc.write_text(json.dumps({"train": [["hi", "greet"]], "oos_train": [["x", "oos"]]}))
    domains.write_text(json.dumps({"talk": ["greet"]}))
    read = read_labelled(clinc, categories=domains).questions
    assert [(q.text, q.answer, q.category) for q in read] == [
        ("hi", "greet", "talk"),
        ("x", None, "default"),
    ]
    assert len(read_labelled(clinc, splits=["train"]).questions) == 1
    lines = tmp_path / "q.jsonl"
    lines.write_text('{"text": "hi", "answer": "greet", "category": "talk"}\n\n')
    assert read_labelled(lines).questions == read[:1]
    lines.write_text('{"asked": "a", "cached": "b", "same": true}\n')
    assert read_labelled(lines).pairs[0].is_same


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"q:1: "),
        ('{"text": "a"}', "q:1: wanted text and answer, or asked, cached and same"),
        ("", "wanted labelled questions or pairs, found none"),
        ('{"train": [["a"]]}', r"train\[0\]: wanted \[text, answer\]"),
    ],
)
def test_a_bad_file_is_refused_with_its_place(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "q"
    file.write_text(content)
    with pytest.raises(BadLabels, match=message):
        read_labelled(file)
    file.write_text('{"a": []}')
    with pytest.raises(BadLabels, match="no split b; has a"):
        read_labelled(file, splits=["b"])


@pytest.mark.parametrize(
    ("flags", "guards", "is_semantic"),  # all guards refuse so many that no threshold is sure
    [
        (["--no-guards"], (), True),
        (["--guard", "numbers"], (Guard.NUMBERS,), True),
        ([], tuple(Guard), False),
    ],
)
def test_command_writes_a_valid_policy_with_the_guards_that_judged(
    minilm: SentenceModel,
    tmp_path: Path,
    flags: list[str],
    guards: tuple[Guard, ...],
    is_semantic: bool,
) -> None:
    rows = []
    for topic in ("boil an egg", "sort a list", "reset my password", "renew a passport"):
        for form in ("how do I {}", "what is the way to {}", "can you help me {}", "{} please"):
            for tail in ("", " today", " quickly", " at home", " again"):
                rows.append({"text": form.format(topic) + tail, "answer": topic, "category": "faq"})
    data = tmp_path / "questions.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    out, projection = tmp_path / "policy.yaml", tmp_path / "projection.npz"
    arguments = ["cache", "calibrate", str(data), "--out", str(out), *flags]
    arguments += ["--projection", str(projection), "--precision", "0.8", "--answer-ms", "faq=500"]
    ran = CliRunner().invoke(app, arguments)
    assert ran.exit_code == 0, ran.output
    policy = parse_policy(yaml.safe_load(out.read_text()))
    assert policy.embedder.projection == str(projection)
    assert projection.exists()
    assert policy.category("faq").semantic == is_semantic
    assert policy.category("faq").guards == guards
    assert policy.category("faq").break_even_hit_ratio == pytest.approx(0.0202, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["/no/such.jsonl"], "can't be read"), (["x", "--answer-ms", "faq=soon"], "--answer-ms")],
)
def test_command_ends_with_a_usage_error(arguments: list[str], message: str) -> None:
    ran = CliRunner().invoke(app, ["cache", "calibrate", *arguments])
    assert ran.exit_code == 2
    assert message in ran.output
