"""This file is about what a question is: its family, its words and the one right answer."""

from dataclasses import dataclass
from enum import StrEnum


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


MAX_SCENES = 3  # a question can be about so many pictures
