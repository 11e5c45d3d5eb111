"""Questions about scenes, and questions about nothing in sight, each with the one right answer.

Answers are short and in lower case ("red", "3", "top left", "yes", "the second"), so that a reply
is right when it equals the answer. A question is asked only where the scene answers it without
doubt: "Where is the star?" needs exactly one star.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from epidote_loadgen.pictures import Colour, Item, Place, Scene, Shape, Size


class QuestionType(StrEnum):
    """Families of questions; `needs_pictures` says how many scenes each is about."""

    COLOUR_AT = "colour at a place"
    SHAPE_AT = "shape at a place"
    COLOUR_OF = "colour of a shape"
    SHAPE_OF = "shape of a colour"
    WHERE = "where is it"
    COUNT = "how many"
    DIGIT = "which digit"
    EXISTS = "is there one"
    COMPARE_COUNT = "more or fewer"
    COMPARE_SIZE = "larger or smaller"
    DESCRIBE = "describe"
    WHICH_PICTURE = "which picture"
    IN_PICTURE = "in one of several pictures"
    ARITHMETIC = "arithmetic"
    FACT = "fact"

    @property
    def needs_pictures(self) -> bool:
        """Whether the question is about at least one scene."""
        return self not in (QuestionType.ARITHMETIC, QuestionType.FACT)

    @property
    def needs_several_pictures(self) -> bool:
        """Whether the question is about two scenes or more."""
        return self in (QuestionType.WHICH_PICTURE, QuestionType.IN_PICTURE)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What is asked, and the exact reply that is right."""

    type: QuestionType
    text: str
    answer: str


ORDINALS = ("first", "second", "third")
MAX_SCENES = len(ORDINALS)
MAX_NUMBER = 20  # of every sum, difference and term

# Each group is one fact: ways of asking, then the answer.
FACTS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("How many legs does a spider have?", "How many legs has a spider?"), "8"),
    (("How many legs does a dog have?", "How many legs has a dog?"), "4"),
    (("How many legs does an insect have?", "How many legs has an insect?"), "6"),
    (("How many legs does a bird have?", "How many legs has a bird?"), "2"),
    (("How many days are in a week?", "How many days has a week?"), "7"),
    (("How many months are in a year?", "How many months has a year?"), "12"),
    (("How many hours are in a day?", "How many hours has a day?"), "24"),
    (("How many minutes are in an hour?", "How many minutes has an hour?"), "60"),
    (("How many sides does a triangle have?", "How many sides has a triangle?"), "3"),
    (("How many sides does a square have?", "How many sides has a square?"), "4"),
    (("How many planets are in the solar system?", "How many planets circle the sun?"), "8"),
    (("What colour is the sky?", "Which colour is a clear sky?"), "blue"),
    (("What colour is grass?", "Which colour is grass?"), "green"),
    (("What colour is a banana?", "Which colour is a ripe banana?"), "yellow"),
    (("What colour is snow?", "Which colour is snow?"), "white"),
    (("What colour is coal?", "Which colour is coal?"), "black"),
    (("What is the capital of France?", "Name the capital of France."), "Paris"),
    (("What is the capital of Germany?", "Name the capital of Germany."), "Berlin"),
    (("What is the capital of Italy?", "Name the capital of Italy."), "Rome"),
    (("What is the capital of Spain?", "Name the capital of Spain."), "Madrid"),
    (("What is the capital of Portugal?", "Name the capital of Portugal."), "Lisbon"),
    (("What is the capital of Austria?", "Name the capital of Austria."), "Vienna"),
    (("What is the capital of Greece?", "Name the capital of Greece."), "Athens"),
    (("What is the capital of Norway?", "Name the capital of Norway."), "Oslo"),
    (("What is the capital of Poland?", "Name the capital of Poland."), "Warsaw"),
    (("What is the capital of Japan?", "Name the capital of Japan."), "Tokyo"),
    (("What is the capital of China?", "Name the capital of China."), "Beijing"),
    (("What is the capital of Egypt?", "Name the capital of Egypt."), "Cairo"),
    (("What is the capital of Cuba?", "Name the capital of Cuba."), "Havana"),
    (("What is the capital of Peru?", "Name the capital of Peru."), "Lima"),
    (("What is the capital of Canada?", "Name the capital of Canada."), "Ottawa"),
    (("What is the capital of England?", "Name the capital of England."), "London"),
    (("What do cows give?", "What do cows give us?"), "milk"),
    (("What do bees make?", "What is made by bees?"), "honey"),
    (("What is the opposite of hot?", "Name the opposite of hot."), "cold"),
    (("What is the opposite of day?", "Name the opposite of day."), "night"),
    (("What is frozen water called?", "What is water called when it freezes?"), "ice"),
    (("Which animal barks?", "What animal barks?"), "dog"),
    (("Which planet do we live on?", "On which planet do we live?"), "earth"),
    (("What is your name?", "Who are you?"), "Epidote"),
)


def ask(kind: QuestionType, scenes: Sequence[Scene], rng: Random) -> Question | None:
    """A question of that family about `scenes`, or None where they allow none.

    Families about several pictures want two or three scenes, the other families about pictures
    exactly one; arithmetic and facts ignore `scenes`. Mutates `rng` only.

    Raises:
        ValueError: a number of scenes that this family cannot be asked about.
    """
    if kind.needs_several_pictures:
        if not 2 <= len(scenes) <= MAX_SCENES:
            raise ValueError(f"{kind}: wanted 2 or 3 scenes, got {len(scenes)}")
    elif kind.needs_pictures and len(scenes) != 1:
        raise ValueError(f"{kind}: wanted one scene, got {len(scenes)}")
    match kind:
        case QuestionType.ARITHMETIC:
            drafted: tuple[str, str] | None = _arithmetic(rng)
        case QuestionType.FACT:
            drafted = _fact(rng)
        case QuestionType.WHICH_PICTURE:
            drafted = _which_picture(scenes, rng)
        case QuestionType.IN_PICTURE:
            drafted = _in_picture(scenes, rng)
        case _:
            drafted = _ABOUT_ONE[kind](scenes[0], rng)
    if drafted is None:
        return None
    text, answer = drafted
    return Question(type=kind, text=_reword(text, rng), answer=str(answer))


def ask_any(scenes: Sequence[Scene], rng: Random) -> Question:
    """A question of any family that fits `scenes`; with none, arithmetic or a fact."""
    kinds = [
        kind
        for kind in QuestionType
        if kind.needs_pictures == bool(scenes) and kind.needs_several_pictures == (len(scenes) > 1)
    ]
    while True:  # ends: every scene can be described, every pair of scenes asked about
        question = ask(rng.choice(kinds), scenes, rng)
        if question is not None:
            return question


def describe(scene: Scene) -> str:
    """Everything in the picture, in reading order: "large red circle top left, blue 7 center"."""
    return ", ".join(
        f"{item.name} {item.place}" if item.is_digit else f"{item.size} {item.name} {item.place}"
        for item in scene.items
    )


def _reword(text: str, rng: Random) -> str:
    """Spelling, case and punctuation vary as people's do; names keep their capitals."""
    if rng.random() < 0.3:
        text = text.replace("colour", "color")
    if rng.random() < 0.15:
        text = text[0].lower() + text[1:]
    if rng.random() < 0.1:
        text = text.rstrip("?. ")
    return text


def _at(place: Place) -> str:
    return "in the center" if place is Place.CENTER else f"at the {place}"


def _single(items: Sequence[Item], by: Callable[[Item], object]) -> list[Item]:
    """The items that no other shares its `by` with."""
    seen = Counter(map(by, items))
    return [item for item in items if seen[by(item)] == 1]


def _pick(options: Sequence[Item], rng: Random) -> Item | None:
    return rng.choice(options) if options else None


def _colour_at(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = _pick(scene.items, rng)
    if item is None:
        return None
    noun = "digit" if item.is_digit else str(item.form)
    at = _at(item.place)
    text = rng.choice(
        (
            f"What colour is the {noun} {at}?",
            f"What colour is the thing {at}?",
            f"Which colour is {at}?",
            f"What colour is {at}?",
        )
    )
    return text, item.colour


def _shape_at(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = _pick(scene.shapes, rng)
    if item is None:
        return None
    at = _at(item.place)
    text = rng.choice(
        (
            f"What shape is {at}?",
            f"Which shape is {at}?",
            f"What is the shape {at}?",
            f"What shape is the thing {at}?",
        )
    )
    return text, str(item.form)


def _colour_of(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = _pick(_single(scene.shapes, lambda item: item.form), rng)
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


def _shape_of(scene: Scene, rng: Random) -> tuple[str, str] | None:
    alone = _single(scene.items, lambda item: item.colour)
    item = _pick([item for item in alone if not item.is_digit], rng)
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


def _where(scene: Scene, rng: Random) -> tuple[str, str] | None:
    names = [(item.name, item) for item in _single(scene.items, lambda item: item.name)]
    names += [(str(item.form), item) for item in _single(scene.items, lambda item: item.form)]
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


def _count(scene: Scene, rng: Random) -> tuple[str, str] | None:
    drawn = rng.random()
    colours = [str(item.colour) for item in scene.shapes] or [rng.choice(tuple(Colour))]
    shapes = [str(item.form) for item in scene.shapes] or [rng.choice(tuple(Shape))]
    if rng.random() < 0.15:  # zero is an answer too
        colours, shapes = list(Colour), list(Shape)
    colour, shape = Colour(rng.choice(colours)), Shape(rng.choice(shapes))
    if drawn < 0.35:
        what, count = _plural(shape), scene.count(shape=shape)
    elif drawn < 0.6:
        what, count = f"{colour} {_plural(shape)}", scene.count(colour=colour, shape=shape)
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


def _digit(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = _pick(scene.digits, rng)
    if item is None:
        return None
    texts = [
        f"Which digit is {_at(item.place)}?",
        f"What digit is {_at(item.place)}?",
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


def _exists(scene: Scene, rng: Random) -> tuple[str, str] | None:
    item = _pick(scene.shapes, rng)
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


def _compare_count(scene: Scene, rng: Random) -> tuple[str, str] | None:
    if rng.random() < 0.6:
        first, second = rng.sample(tuple(Shape), 2)
        if scene.shapes and rng.random() < 0.85:
            first = Shape(str(rng.choice(scene.shapes).form))
            second = rng.choice([shape for shape in Shape if shape is not first])
        if len({item.form for item in scene.shapes}) >= 2 and rng.random() < 0.8:
            first, second = rng.sample(sorted({Shape(str(i.form)) for i in scene.shapes}), 2)
        names = _plural(first), _plural(second)
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


def _compare_size(scene: Scene, rng: Random) -> tuple[str, str] | None:
    named = _single(scene.shapes, lambda item: item.name)
    small = _pick([item for item in named if item.size is Size.SMALL], rng)
    large = _pick([item for item in named if item.size is Size.LARGE], rng)
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


def _describe(scene: Scene, rng: Random) -> tuple[str, str] | None:
    text = rng.choice(
        (
            "Describe the picture.",
            "What is in the picture?",
            "What do you see?",
            "List everything in the picture.",
        )
    )
    return text, describe(scene)


def _which_picture(scenes: Sequence[Scene], rng: Random) -> tuple[str, str] | None:
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
                    f"Which picture has {word} {_plural(shape)}?",
                    f"Which picture shows {word} {_plural(shape)}?",
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


def _in_picture(scenes: Sequence[Scene], rng: Random) -> tuple[str, str] | None:
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
    drafted = _ABOUT_ONE[kind](scene, rng)
    if drafted is None:
        return None
    text, answer = drafted
    named = rng.choice((f"the {ORDINALS[index]} picture", f"picture {index + 1}"))
    if "the picture" in text:
        return text.replace("the picture", named), answer
    return f"{text[:-1]} in {named}{text[-1]}", answer


def _arithmetic(rng: Random) -> tuple[str, str]:
    drawn = rng.random()
    if drawn < 0.5:
        total = rng.randint(0, MAX_NUMBER)
        one = rng.randint(0, total)
        sign, word, answer = "+", "plus", str(total)
        other = total - one
    elif drawn < 0.85:
        one = rng.randint(0, MAX_NUMBER)
        other = rng.randint(0, one)
        sign, word, answer = "-", "minus", str(one - other)
    else:
        one, other = rng.sample(range(MAX_NUMBER + 1), 2)
        if rng.random() < 0.5:
            return f"Which is larger, {one} or {other}?", str(max(one, other))
        return f"Which is smaller, {one} or {other}?", str(min(one, other))
    text = rng.choice(
        (
            f"What is {one} {sign} {other}?",
            f"What is {one} {word} {other}?",
            f"How much is {one} {word} {other}?",
            f"{one} {sign} {other} = ?",
        )
    )
    return text, answer


def _fact(rng: Random) -> tuple[str, str]:
    ways, answer = rng.choice(FACTS)
    return rng.choice(ways), answer


def _plural(shape: Shape) -> str:
    return f"{shape}es" if shape is Shape.CROSS else f"{shape}s"


_ABOUT_ONE: dict[QuestionType, Callable[[Scene, Random], tuple[str, str] | None]] = {
    QuestionType.COLOUR_AT: _colour_at,
    QuestionType.SHAPE_AT: _shape_at,
    QuestionType.COLOUR_OF: _colour_of,
    QuestionType.SHAPE_OF: _shape_of,
    QuestionType.WHERE: _where,
    QuestionType.COUNT: _count,
    QuestionType.DIGIT: _digit,
    QuestionType.EXISTS: _exists,
    QuestionType.COMPARE_COUNT: _compare_count,
    QuestionType.COMPARE_SIZE: _compare_size,
    QuestionType.DESCRIBE: _describe,
}
