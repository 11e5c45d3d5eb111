"""Questions about scenes, and questions about nothing in sight, each with the one right answer.

Answers are short and in lower case ("red", "3", "top left", "yes", "the second"), so that a reply
is right when it equals the answer. A question is asked only where the scene answers it without
doubt: "Where is the star?" needs exactly one star.
"""

from epidote_loadgen.questions.asking import ask, ask_any
from epidote_loadgen.questions.everyday import FACTS, MAX_NUMBER
from epidote_loadgen.questions.one_picture import describe
from epidote_loadgen.questions.question import MAX_SCENES, Question, QuestionType
from epidote_loadgen.questions.wording import ORDINALS

__all__ = [
    "FACTS",
    "MAX_NUMBER",
    "MAX_SCENES",
    "ORDINALS",
    "Question",
    "QuestionType",
    "ask",
    "ask_any",
    "describe",
]
