"""This file is about asking: one question of a family, or of any that the pictures allow."""

from collections.abc import Sequence
from random import Random

from epidote_loadgen.pictures import Scene
from epidote_loadgen.questions.about import ABOUT_ONE
from epidote_loadgen.questions.everyday import arithmetic, fact
from epidote_loadgen.questions.question import MAX_SCENES, Question, QuestionType
from epidote_loadgen.questions.several_pictures import in_picture, which_picture
from epidote_loadgen.questions.wording import reword


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
            drafted: tuple[str, str] | None = arithmetic(rng)
        case QuestionType.FACT:
            drafted = fact(rng)
        case QuestionType.WHICH_PICTURE:
            drafted = which_picture(scenes, rng)
        case QuestionType.IN_PICTURE:
            drafted = in_picture(scenes, rng)
        case _:
            drafted = ABOUT_ONE[kind](scenes[0], rng)
    if drafted is None:
        return None
    text, answer = drafted
    return Question(type=kind, text=reword(text, rng), answer=str(answer))


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
