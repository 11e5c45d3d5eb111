"""This file is about questions finding their category by its exemplars, or none."""

import numpy as np

from epidote_gateway.cache.meaning.classifier import ExemplarClassifier
from epidote_gateway.cache.meaning.projection import unit_rows
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.policy import DEFAULT_CATEGORY, ClassifierSpec

SPEC = ClassifierSpec(min_similarity=0.3, min_margin=0.05)
EAST = np.array([[1.0, 0.0, 0.0]], np.float32)
NORTH = np.array([[0.0, 1.0, 0.0]], np.float32)
QUESTIONS = {
    "code": ["how do I sort a list in python", "what does this stack trace mean"],
    "cooking": ["how long do I boil an egg", "what can replace butter in a cake"],
}


def test_nearest_category_is_found_with_its_similarity() -> None:
    classifier = ExemplarClassifier({"east": EAST, "north": NORTH}, SPEC)
    found = classifier.classify(np.array([0.8, 0.6, 0.0], np.float32), "")
    assert found.name == "east"
    assert abs(found.similarity - 0.8) < 1e-6


def test_a_question_between_two_categories_is_of_none() -> None:
    classifier = ExemplarClassifier({"east": EAST, "north": NORTH}, SPEC)
    between = unit_rows(np.array([1.0, 0.99, 0.0], np.float32))
    assert classifier.classify(between, "").name == DEFAULT_CATEGORY


def test_a_question_far_from_all_is_of_none() -> None:
    classifier = ExemplarClassifier({"east": EAST, "north": NORTH}, SPEC)
    assert classifier.classify(np.array([0.0, 0.0, 1.0], np.float32), "").name == DEFAULT_CATEGORY


def test_a_category_of_two_kinds_is_found_by_either() -> None:
    kinds = np.concatenate([EAST] * 3 + [NORTH] * 3)
    middle = unit_rows(np.array([[0.6, 0.6, 0.5]], np.float32))
    classifier = ExemplarClassifier({"kinds": kinds, "middle": middle}, SPEC)
    assert classifier.classify(EAST[0], "").name == "kinds"
    assert classifier.classify(NORTH[0], "").name == "kinds"


def test_without_exemplars_everything_is_of_no_category() -> None:
    empty = np.zeros((0, 3), np.float32)
    for exemplars in ({}, {"east": empty}):
        assert ExemplarClassifier(exemplars, SPEC).classify(EAST[0], "").name == DEFAULT_CATEGORY


def test_one_category_alone_needs_no_lead() -> None:
    classifier = ExemplarClassifier({"east": EAST}, SPEC)
    assert classifier.classify(EAST[0], "").name == "east"


def test_real_questions_find_their_category(minilm: SentenceModel) -> None:
    classifier = ExemplarClassifier(
        {name: minilm.embed(texts) for name, texts in QUESTIONS.items()}, SPEC
    )
    asked = ["sorting a python list of tuples", "how many minutes to boil eggs", "who won"]
    names = [classifier.classify(vector, "").name for vector in minilm.embed(asked)]
    assert names == ["code", "cooking", DEFAULT_CATEGORY]
