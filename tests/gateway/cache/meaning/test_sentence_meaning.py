"""This file is about a policy becoming an embedder, a classifier and guards."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from epidote_gateway.cache.meaning import SentenceMeaning
from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.meaning.model_files import NoSentenceModel
from epidote_gateway.cache.meaning.projection import BadProjection, Projection
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.policy import CategorySpec, parse_policy

CATEGORIES = [
    {"name": "code", "exemplars": ["how do I sort a list in python", "what is a stack trace"]},
    {"name": "cooking", "exemplars": ["how long do I boil an egg", "what can replace butter"]},
    {"name": "unknown"},
]


async def test_policy_becomes_judges_that_work_together(minilm: SentenceModel) -> None:
    policy = parse_policy({"categories": CATEGORIES})
    meaning = SentenceMeaning()
    embedder = await meaning.embedder(policy)
    classifier = await meaning.classifier(policy, embedder)
    asked = "how many minutes do eggs have to boil"
    vector = (await embedder.embed([asked]))[0]
    assert classifier.classify(vector, asked).name == "cooking"
    guards = meaning.guards(policy, policy.category("cooking"))
    assert guards.check("who won in 2019", "who won in 2020") is not None
    await embedder.aclose()


async def test_an_unchanged_embedder_is_kept(minilm: SentenceModel) -> None:
    meaning = SentenceMeaning()
    first = await meaning.embedder(parse_policy({}))
    other_thresholds = parse_policy({"categories": [{"name": "faq", "threshold": 0.8}]})
    assert await meaning.embedder(other_thresholds) is first
    assert await meaning.embedder(parse_policy({"embedder": {"precision": "Int8"}})) is first
    changed = await meaning.embedder(parse_policy({"embedder": {"maxTokens": 64}}))
    assert changed is not first
    assert changed.name != first.name
    await first.aclose()
    await changed.aclose()


async def test_a_new_projection_under_the_same_name_is_read_again(
    minilm: SentenceModel, tmp_path: Path
) -> None:
    file = tmp_path / "projection.npz"
    policy = parse_policy({"embedder": {"projection": str(file)}})
    meaning = SentenceMeaning()
    with pytest.raises(BadProjection):
        await meaning.embedder(policy)
    names = []
    for dimensions in (8, 4):
        projection = Projection(
            mean=np.zeros(384, np.float32),
            matrix=np.eye(384, dimensions, dtype=np.float32),
            model=minilm.name,
        )
        file.unlink(missing_ok=True)
        projection.save(file)
        embedder = await meaning.embedder(policy)
        assert embedder.dimensions == dimensions
        names.append(embedder.name)
        await embedder.aclose()
    assert len(set(names)) == 2


async def test_a_missing_model_names_the_field() -> None:
    policy = parse_policy({"embedder": {"model": "/no/such/model"}})
    with pytest.raises(NoSentenceModel, match=r"embedder\.model"):
        await SentenceMeaning().embedder(policy)


def test_no_guard_is_on_where_the_policy_switches_them_off() -> None:
    def guards(spec: dict[str, Any], **category: Any) -> WordGuards:
        return SentenceMeaning().guards(
            parse_policy(spec), CategorySpec.model_validate({"name": "faq", **category})
        )

    off = guards({"guards": {"enabled": False}})
    assert off.check("who won in 2019", "who won in 2020") is None
    few = guards({}, guards=["entities"])
    assert few.check("who won in 2019", "who won in 2020") is None
    part = guards({"guards": {"numbers": False}})
    assert part.check("who won in 2019", "who won in 2020") is None
    assert part.check("capital of France", "capital of Spain") is not None
