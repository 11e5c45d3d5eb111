"""This file is about traps staying refused and paraphrases staying served, as far as they are."""

from random import Random

from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.meaning.sentence_model import SentenceModel
from epidote_gateway.cache.meaning.trap_questions import QuestionPair, question_pairs
from epidote_gateway.cache.policy import GuardsSpec

GUARDS = WordGuards(GuardsSpec())
KINDS = {"numbers", "dates", "negation", "entities", "scope"}


def passed(pairs: list[QuestionPair]) -> float:
    return sum(GUARDS.check(pair.asked, pair.cached) is None for pair in pairs) / len(pairs)


def test_same_seed_makes_the_same_pairs_of_every_kind() -> None:
    pairs = question_pairs(Random(4), per_topic=3)
    assert pairs == question_pairs(Random(4), per_topic=3)
    for held_out in (False, True):
        for is_same in (False, True):
            chosen = [p for p in pairs if p.held_out == held_out and p.is_same == is_same]
            assert {pair.kind for pair in chosen} == KINDS


def test_few_traps_pass_the_guards_alone_and_most_known_paraphrases_do() -> None:
    pairs = question_pairs(Random(5))
    for held_out, least in ((False, 0.9), (True, 0.45)):
        traps = [pair for pair in pairs if pair.held_out == held_out and not pair.is_same]
        same = [pair for pair in pairs if pair.held_out == held_out and pair.is_same]
        assert passed(traps) <= 0.02
        assert passed(same) >= least


def test_the_sentence_model_alone_takes_most_traps_for_the_same(minilm: SentenceModel) -> None:
    """Why the guards are on by default: were this to fail, they could be loosened."""
    pairs = [pair for pair in question_pairs(Random(6), per_topic=3) if not pair.is_same]
    asked = minilm.embed([pair.asked for pair in pairs])
    cached = minilm.embed([pair.cached for pair in pairs])
    assert ((asked * cached).sum(axis=1) >= 0.8).mean() > 0.4
