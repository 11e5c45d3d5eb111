"""This file is about questions whose answers are known to be the same or not, read from files.

Three forms. JSON lines with `text`, `answer` (equal names: the same answer serves; null or "oos":
nothing that is cached does) and optionally `category`. JSON lines with `asked`, `cached`, `same`
and optionally `category`. Or CLINC's form: `{"split": [["text", "answer"], …]}`, with a second file
`{"category": ["answer", …]}`; splits whose names begin with `oos` are out of scope.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_gateway.cache.policy import DEFAULT_CATEGORY

OUT_OF_SCOPE = "oos"


class BadLabels(EpidoteError, ValueError):
    """A file of labelled questions can't be used; the message names file and line."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    text: str = field(repr=False)
    answer: str | None  # None: out of scope
    category: str


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelledPair:
    asked: str = field(repr=False)
    cached: str = field(repr=False)
    is_same: bool
    category: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Either may be empty."""

    questions: tuple[Question, ...] = ()
    pairs: tuple[LabelledPair, ...] = ()


def read_labelled(
    path: Path, *, categories: Path | None = None, splits: Collection[str] = ()
) -> Labelled:
    """`splits`: of CLINC's form, those to read; empty: all.

    Raises:
        BadLabels.
    """
    try:
        text = path.read_text(encoding="utf-8")
        category_of = _category_of(categories) if categories else {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadLabels(f"{path}: can't be read: {error}") from error
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        whole = None  # lines, then
    if isinstance(whole, dict) and not whole.keys() & {"text", "asked"}:
        return Labelled(questions=_clinc(path, whole, category_of, splits))
    questions, pairs = [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            match row:
                case {"text": str(asked), "answer": str() | None as answer}:
                    questions.append(_question(asked, answer, category_of, row.get("category")))
                case {"asked": str(asked), "cached": str(cached), "same": bool(same)}:
                    category = row.get("category") or DEFAULT_CATEGORY
                    pairs.append(
                        LabelledPair(asked=asked, cached=cached, is_same=same, category=category)
                    )
                case _:
                    raise ValueError("wanted text and answer, or asked, cached and same")
        except ValueError as error:
            raise BadLabels(f"{path}:{number}: {error}") from error
    if not questions and not pairs:
        raise BadLabels(f"{path}: wanted labelled questions or pairs, found none")
    return Labelled(questions=tuple(questions), pairs=tuple(pairs))


def _question(
    text: str, answer: str | None, category_of: Mapping[str, str], category: str | None
) -> Question:
    if answer is None or answer == OUT_OF_SCOPE:
        return Question(text=text, answer=None, category=DEFAULT_CATEGORY)
    found = category or category_of.get(answer) or DEFAULT_CATEGORY
    return Question(text=text, answer=answer, category=found)


def _clinc(
    path: Path, found: Mapping[str, Any], category_of: Mapping[str, str], splits: Collection[str]
) -> tuple[Question, ...]:
    unknown = set(splits) - set(found)
    if unknown:
        raise BadLabels(f"{path}: no split {', '.join(sorted(unknown))}; has {', '.join(found)}")
    questions = []
    for split, rows in found.items():
        if splits and split not in splits:
            continue
        for number, row in enumerate(rows):
            match row:
                case [str(text), str(answer)]:
                    outside = split.startswith(OUT_OF_SCOPE)
                    questions.append(
                        _question(text, None if outside else answer, category_of, None)
                    )
                case _:
                    raise BadLabels(f"{path}: {split}[{number}]: wanted [text, answer]")
    return tuple(questions)


def _category_of(path: Path) -> Mapping[str, str]:
    """Answer -> category."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {answer: name for name, answers in found.items() for answer in answers}
    except (json.JSONDecodeError, AttributeError, TypeError) as error:
        raise BadLabels(f'{path}: wanted {{"category": ["answer", …]}}: {error}') from error
