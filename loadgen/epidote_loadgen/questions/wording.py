"""This file is about how people put things: places, plurals, spelling and case."""

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random

from epidote_loadgen.pictures import Item, Place, Shape

ORDINALS = ("first", "second", "third")


def reword(text: str, rng: Random) -> str:
    """Spelling, case and punctuation vary as people's do; names keep their capitals."""
    if rng.random() < 0.3:
        text = text.replace("colour", "color")
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.1:
        text = text.rstrip("?. ")
    return text


def at_place(place: Place) -> str:
    return "in the center" if place is Place.CENTER else f"at the {place}"


def single(items: Sequence[Item], by: Callable[[Item], object]) -> list[Item]:
    """The items that no other shares its `by` with."""
    seen = Counter(map(by, items))
    return [item for item in items if seen[by(item)] == 1]


def pick(options: Sequence[Item], rng: Random) -> Item | None:
    return rng.choice(options) if options else None


def plural(shape: Shape) -> str:
    return f"{shape}es" if shape is Shape.CROSS else f"{shape}s"
