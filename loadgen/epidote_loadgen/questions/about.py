"""This file is about which drafter asks which family of questions about one picture."""

from collections.abc import Callable
from random import Random

from epidote_loadgen.pictures import Scene
from epidote_loadgen.questions.counting import compare_count, compare_size, exists, how_many
from epidote_loadgen.questions.one_picture import (
    colour_at,
    colour_of,
    describe_all,
    shape_at,
    shape_of,
    where,
    which_digit,
)
from epidote_loadgen.questions.question import QuestionType

ABOUT_ONE: dict[QuestionType, Callable[[Scene, Random], tuple[str, str] | None]] = {
    QuestionType.COLOUR_AT: colour_at,
    QuestionType.SHAPE_AT: shape_at,
    QuestionType.COLOUR_OF: colour_of,
    QuestionType.SHAPE_OF: shape_of,
    QuestionType.WHERE: where,
    QuestionType.COUNT: how_many,
    QuestionType.DIGIT: which_digit,
    QuestionType.EXISTS: exists,
    QuestionType.COMPARE_COUNT: compare_count,
    QuestionType.COMPARE_SIZE: compare_size,
    QuestionType.DESCRIBE: describe_all,
}
