"""This file is about pairs of questions made from `trap_topics`: traps and true paraphrases.

A trap is two questions of one topic with different values, in the same wording or in two: serving
one's answer for the other is wrong. A paraphrase has the same value in two wordings.
"""

from dataclasses import dataclass
from random import Random

from epidote_gateway.cache.meaning.trap_topics import TOPICS, Topic


@dataclass(frozen=True, kw_only=True, slots=True)
class QuestionPair:
    kind: str
    asked: str
    cached: str
    is_same: bool  # whether one answer serves both
    held_out: bool


def question_pairs(rng: Random, *, per_topic: int = 20) -> list[QuestionPair]:
    """Up to `per_topic` traps and as many paraphrases of each topic, in random order.

    One trap in two keeps the wording: the harder half. A part of the questions is written in lower
    case and without a question mark, as people type.
    """
    found: list[QuestionPair] = []
    for topic in TOPICS:
        traps = {_trap(topic, rng) for _ in range(per_topic)}
        same = {_paraphrase(topic, rng) for _ in range(per_topic)}
        found += sorted(traps | same, key=lambda pair: (pair.asked, pair.cached))
    rng.shuffle(found)
    return found


def _trap(topic: Topic, rng: Random) -> QuestionPair:
    asked, cached = rng.sample(topic.values, 2)
    wording = rng.choice(topic.wordings)
    other = wording if rng.random() < 0.5 else rng.choice(topic.wordings)
    return _pair(topic, wording.format(asked), other.format(cached), False, rng)


def _paraphrase(topic: Topic, rng: Random) -> QuestionPair:
    value = rng.choice(topic.values)
    wording, other = rng.sample(topic.wordings, 2)
    return _pair(topic, wording.format(value), other.format(value), True, rng)


def _pair(topic: Topic, asked: str, cached: str, is_same: bool, rng: Random) -> QuestionPair:
    if rng.random() < 0.3:
        asked = asked.lower().rstrip("?")
    return QuestionPair(
        kind=topic.kind,
        asked=asked,
        cached=cached,
        is_same=is_same,
        held_out=topic.held_out,
    )
