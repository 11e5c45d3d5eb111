"""This file is about questions on how many things a picture shows, and which are larger."""

from random import Random

from epidote_loadgen.pictures import Colour, Scene, Shape, Size
from epidote_loadgen.questions.wording import pick, plural, single


def how_many(scene: Scene, rng: Random) -> tuple[str, str] | None:
    drawn = rng.random()
    colours = [str(item.colour) for item in scene.shapes] or [rng.choice(tuple(Colour))]
    shapes = [str(item.form) for item in scene.shapes] or [rng.choice(tuple(Shape))]
    if rng.random() < 0.15:  # zero is an answer too
        colours, shapes = list(Colour), list(Shape)
    colour, shape = Colour(rng.choice(colours)), Shape(rng.choice(shapes))
    if drawn < 0.35:
        what, count = plural(shape), scene.count(shape=shape)
    elif drawn < 0.6:
        what, count = f"{colour} {plural(shape)}", scene.count(colour=colour, shape=shape)
    elif drawn < 0.85:
        what, count = f"{colour} shapes", scene.count(colour=colour)
    elif drawn < 0.95:
        what, count = "shapes", scene.count()
    else:
        what, count = "digits", len(scene.digits)
    text = rng.choice(
        (
            f"How many {what} are there?",
            f"How many {what} do you see?",
            f"How many {what} are in the picture?",
            f"Count the {what}.",
        )
    )
    return text, str(count)


def exists(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = pick(scene.shapes, rng)
    if item is None:
        return None
    wanted = rng.random() < 0.5
    if rng.random() < 0.25:
        form = item.form
        absent = [shape for shape in Shape if not scene.count(shape=shape)]
        if not wanted and absent:
            form = rng.choice(absent)
        what, answer = str(form), any(o.form == form for o in scene.shapes)
    else:
        colour, form = item.colour, item.form
        if not wanted:
            if rng.random() < 0.5:  # a colour that is there, and a form that is there, but apart
                colour = rng.choice(scene.shapes).colour
            else:
                colour = rng.choice(tuple(Colour))
            if rng.random() < 0.3:
                form = rng.choice(tuple(Shape))
        what = f"{colour} {form}"
        answer = any(o.colour is colour and o.form == form for o in scene.shapes)
    article = "an" if what[0] == "o" else "a"
    text = rng.choice(
        (
            f"Is there {article} {what}?",
            f"Is there {article} {what} in the picture?",
            f"Do you see {article} {what}?",
            f"Does the picture show {article} {what}?",
        )
    )
    return text, "yes" if answer else "no"


def compare_count(scene: Scene, rng: Random) -> tuple[str, str] | None:
    if rng.random() < 0.6:
        first, second = rng.sample(tuple(Shape), 2)
        if scene.shapes and rng.random() < 0.85:
            first = Shape(str(rng.choice(scene.shapes).form))
            second = rng.choice([shape for shape in Shape if shape is not first])
        if len({item.form for item in scene.shapes}) >= 2 and rng.random() < 0.8:
            first, second = rng.sample(sorted({Shape(str(i.form)) for i in scene.shapes}), 2)
        names = plural(first), plural(second)
        counts = scene.count(shape=first), scene.count(shape=second)
    else:
        present = sorted({item.colour for item in scene.shapes})
        if not present:
            return None
        if len(present) == 1:
            present.append(rng.choice([colour for colour in Colour if colour not in present]))
        one, other = rng.sample(present, 2)
        names = f"{one} shapes", f"{other} shapes"
        counts = scene.count(colour=one), scene.count(colour=other)
    if rng.random() < 0.5:
        names, counts = names[::-1], counts[::-1]
    more = rng.random() < 0.5
    word = "more" if more else "fewer"
    if counts[0] != counts[1] and rng.random() < 0.5:
        winner = names[(counts[0] > counts[1]) != more]
        text = rng.choice(
            (
                f"Which are there {word} of, {names[0]} or {names[1]}?",
                f"Are there {word} {names[0]} or {names[1]}?",
            )
        )
        return text, winner
    holds = counts[0] > counts[1] if more else counts[0] < counts[1]
    text = rng.choice(
        (
            f"Are there {word} {names[0]} than {names[1]}?",
            f"Do you see {word} {names[0]} than {names[1]}?",
        )
    )
    return text, "yes" if holds else "no"


def compare_size(scene: Scene, rng: Random) -> tuple[str, str] | None:
    named = single(scene.shapes, lambda item: item.name)
    small = pick([item for item in named if item.size is Size.SMALL], rng)
    large = pick([item for item in named if item.size is Size.LARGE], rng)
    if small is None or large is None:
        return None
    first, second = (small, large) if rng.random() < 0.5 else (large, small)
    word, wanted = rng.choice((("larger", large), ("smaller", small)))
    if rng.random() < 0.5:
        text = f"Is the {first.name} {word} than the {second.name}?"
        return text, "yes" if first is wanted else "no"
    text = rng.choice(
        (
            f"Which is {word}, the {first.name} or the {second.name}?",
            f"What is {word}, the {first.name} or the {second.name}?",
        )
    )
    return text, wanted.name
