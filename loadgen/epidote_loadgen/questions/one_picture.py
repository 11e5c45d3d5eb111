"""This file is about questions on one thing in one picture: colour, form, place, digit."""

from random import Random

from epidote_loadgen.pictures import Scene
from epidote_loadgen.questions.wording import at_place, pick, single


def colour_at(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = pick(scene.items, rng)
    if item is None:
        return None
    noun = "digit" if item.is_digit else str(item.form)
    at = at_place(item.place)
    text = rng.choice(
        (
            f"What colour is the {noun} {at}?",
            f"What colour is the thing {at}?",
            f"Which colour is {at}?",
            f"What colour is {at}?",
        )
    )
    return text, item.colour


def shape_at(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = pick(scene.shapes, rng)
    if item is None:
        return None
    at = at_place(item.place)
    text = rng.choice(
        (
            f"What shape is {at}?",
            f"Which shape is {at}?",
            f"What is the shape {at}?",
            f"What shape is the thing {at}?",
        )
    )
    return text, str(item.form)


def colour_of(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = pick(single(scene.shapes, lambda item: item.form), rng)
    if item is None:
        return None
    text = rng.choice(
        (
            f"What colour is the {item.form}?",
            f"Which colour is the {item.form}?",
            f"What is the colour of the {item.form}?",
            f"Name the colour of the {item.form}.",
        )
    )
    return text, item.colour


def shape_of(scene: Scene, rng: Random) -> tuple[str, str] | None:
    alone = single(scene.items, lambda item: item.colour)
    item = pick([item for item in alone if not item.is_digit], rng)
    if item is None:
        return None
    text = rng.choice(
        (
            f"Which shape is {item.colour}?",
            f"What shape is {item.colour}?",
            f"What is the {item.colour} shape?",
            f"What shape is the {item.colour} thing?",
        )
    )
    return text, str(item.form)


def where(scene: Scene, rng: Random) -> tuple[str, str] | None:
    names = [(item.name, item) for item in single(scene.items, lambda item: item.name)]
    names += [(str(item.form), item) for item in single(scene.items, lambda item: item.form)]
    if len(scene.digits) == 1:
        names.append(("digit", scene.digits[0]))
    if not names:
        return None
    name, item = rng.choice(names)
    text = rng.choice(
        (
            f"Where is the {name}?",
            f"Where is the {name} in the picture?",
            f"At which place is the {name}?",
            f"Where do you see the {name}?",
        )
    )
    return text, item.place


def which_digit(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = pick(scene.digits, rng)
    if item is None:
        return None
    texts = [
        f"Which digit is {at_place(item.place)}?",
        f"What digit is {at_place(item.place)}?",
    ]
    if len(scene.digits) == 1:
        texts += [
            "Which digit is in the picture?",
            "What digit do you see?",
            "What number is shown?",
            "Which digit is there?",
        ]
    if sum(other.colour is item.colour for other in scene.digits) == 1:
        texts.append(f"Which digit is {item.colour}?")
    return rng.choice(texts), str(item.form)


def describe_all(scene: Scene, rng: Random) -> tuple[str, str] | None:
    text = rng.choice(
        (
            "Describe the picture.",
            "What is in the picture?",
            "What do you see?",
            "List everything in the picture.",
        )
    )
    return text, describe(scene)


def describe(scene: Scene) -> str:
    """Everything in the picture, in reading order: "large red circle top left, blue 7 center"."""
    return ", ".join(
        f"{item.name} {item.place}" if item.is_digit else f"{item.size} {item.name} {item.place}"
        for item in scene.items
    )
