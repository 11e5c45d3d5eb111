"""This file is about groups of questions that mean the same, and traps that only look like it.

A response cache may answer a whole group alike and must never answer a trap from the group: a trap
differs in one number, one name or the picture, and has another answer.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from epidote_loadgen.questions import FACTS, MAX_NUMBER
from epidote_loadgen.workload.picture_source import PictureSource


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One text, perhaps about one picture, and its right answer."""

    text: str
    answer: str
    image_id: str = ""


@dataclass(frozen=True, kw_only=True)
class ParaphraseGroup:
    """`ways` are all answered alike; every one of `traps` is answered otherwise."""

    group_id: str
    category: str
    ways: tuple[Asked, ...]
    traps: tuple[Asked, ...]


def sum_group(number: int, rng: Random) -> ParaphraseGroup:
    """A sum in four ways; the traps add another number, or subtract."""
    total = rng.randint(2, MAX_NUMBER - 1)
    one = rng.randint(1, total - 1)
    other = total - one
    traps = [Asked(text=text, answer=str(total + 1)) for text in _sums(one, other + 1)]
    if one > other:
        traps.append(Asked(text=f"What is {one} minus {other}?", answer=str(one - other)))
    return ParaphraseGroup(
        group_id=f"sum-{number}",
        category="arithmetic",
        ways=tuple(Asked(text=text, answer=str(total)) for text in _sums(one, other)),
        traps=tuple(traps),
    )


def _sums(one: int, other: int) -> tuple[str, ...]:
    return (
        f"What is {one} + {other}?",
        f"What is {one} plus {other}?",
        f"How much is {one} plus {other}?",
        f"{one} + {other} = ?",
    )


def fact_group(number: int, rng: Random) -> ParaphraseGroup:
    """A fact in its ways; the traps are the facts that begin alike, as capitals do."""
    ways, answer = rng.choice(FACTS)
    opening = ways[0].split()[:3]
    traps = [
        Asked(text=text, answer=right)
        for texts, right in FACTS
        for text in texts
        if right != answer and text.split()[:3] == opening
    ]
    return ParaphraseGroup(
        group_id=f"fact-{number}",
        category="fact",
        ways=tuple(Asked(text=text, answer=answer) for text in ways),
        traps=tuple(traps),
    )


def picture_group(
    number: int, rng: Random, pictures: PictureSource, *, num_tries: int = 64
) -> ParaphraseGroup:
    """How many things a picture shows, in three ways; the traps ask it of other pictures."""
    base = f"{pictures.name}-group-{number}"
    shown = len(pictures.scene(base).shapes)
    texts = (
        "How many shapes are there?",
        "How many shapes do you see?",
        "Count the shapes.",
    )
    traps: list[Asked] = []
    for step in range(num_tries):
        other = f"{base}-trap-{step}"
        count = len(pictures.scene(other).shapes)
        if count != shown:
            traps.append(Asked(text=rng.choice(texts), answer=str(count), image_id=other))
        if len(traps) == 3:
            break
    return ParaphraseGroup(
        group_id=f"picture-{number}",
        category="how many",
        ways=tuple(Asked(text=text, answer=str(shown), image_id=base) for text in texts),
        traps=tuple(traps),
    )


KINDS: Sequence[str] = ("sum", "fact", "picture")


def group(number: int, seed: int, kinds: Sequence[str], pictures: PictureSource) -> ParaphraseGroup:
    """Group `number` of a workload; its kind goes round."""
    rng = Random(f"{seed}/{pictures.name}/group/{number}")
    match kinds[number % len(kinds)]:
        case "sum":
            return sum_group(number, rng)
        case "fact":
            return fact_group(number, rng)
        case _:
            return picture_group(number, rng, pictures)
