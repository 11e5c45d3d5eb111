"""This file is about questions on two or three pictures at once."""

from collections.abc import Sequence
from random import Random

from epidote_loadgen.pictures import Colour, Scene, Shape
from epidote_loadgen.questions.about import ABOUT_ONE
from epidote_loadgen.questions.question import QuestionType
from epidote_loadgen.questions.wording import ORDINALS, plural


def which_picture(scenes: Sequence[Scene], rng: Random) -> tuple[str, str] | None:
    for _ in range(8):  # few draws find a target that singles out one picture
        shape, colour = rng.choice(tuple(Shape)), rng.choice(tuple(Colour))
        seen = rng.choice(scenes).items
        item = rng.choice(seen)
        if rng.random() < 0.5:
            if not item.is_digit:
                shape = Shape(str(item.form))
            counts = [scene.count(shape=shape) for scene in scenes]
            best = max(counts)
            if counts.count(best) != 1:
                continue
            word = "more" if len(scenes) == 2 else "the most"
            text = rng.choice(
                (
                    f"Which picture has {word} {plural(shape)}?",
                    f"Which picture shows {word} {plural(shape)}?",
                )
            )
            return text, f"the {ORDINALS[counts.index(best)]}"
        kind = rng.randrange(3)
        if kind == 0:
            what = f"digit {item.form}" if item.is_digit else str(item.form)
            holds = [any(o.form == item.form for o in scene.items) for scene in scenes]
        elif kind == 1:
            if not item.is_digit:
                colour = item.colour
            what = f"{colour} shape"
            holds = [scene.count(colour=colour) > 0 for scene in scenes]
        elif not item.is_digit:
            what = item.name
            holds = [any(o.name == item.name for o in scene.shapes) for scene in scenes]
        else:
            continue
        if sum(holds) != 1:
            continue
        article = "the" if what.startswith("digit") else "an" if what[0] == "o" else "a"
        text = rng.choice(
            (f"Which picture has {article} {what}?", f"Which picture shows {article} {what}?")
        )
        return text, f"the {ORDINALS[holds.index(True)]}"
    return None


def in_picture(scenes: Sequence[Scene], rng: Random) -> tuple[str, str] | None:
    index = rng.randrange(len(scenes))
    scene = scenes[index]
    kind = rng.choice(
        (
            QuestionType.COLOUR_AT,
            QuestionType.SHAPE_AT,
            QuestionType.COLOUR_OF,
            QuestionType.COLOUR_OF,
            QuestionType.SHAPE_OF,
            QuestionType.WHERE,
            QuestionType.COUNT,
            QuestionType.DIGIT,
            QuestionType.EXISTS,
        )
    )
    drafted = ABOUT_ONE[kind](scene, rng)
    if drafted is None:
        return None
    text, answer = drafted
    named = rng.choice((f"the {ORDINALS[index]} picture", f"picture {index + 1}"))
    if "the picture" in text:
        return text.replace("the picture", named), answer
    return f"{text[:-1]} in {named}{text[-1]}", answer
