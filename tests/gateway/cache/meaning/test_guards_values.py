"""This file is about values that hide in signs, small words and grammar, and about one question in
two spellings.

Most pairs are a part of what a stranger asked, or of the same kind.
"""

import pytest

from epidote_gateway.cache.meaning.guards.spelling import one_spelling
from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.policy import Guard, GuardsSpec
from epidote_gateway.cache.protocols import Reason

GUARDS = WordGuards(GuardsSpec())
OF_VALUES = WordGuards(
    GuardsSpec(),
    [Guard.NUMBERS, Guard.DATES, Guard.UNITS, Guard.NEGATION, Guard.LANGUAGE, Guard.CODE],
)

VALUES = [
    (Reason.NUMBERS, "What is 1e6 divided by 4?", "What is 1e5 divided by 4?"),
    (Reason.NUMBERS, "Is 1.5e3 much?", "Is 1.5e4 much?"),
    (Reason.NUMBERS, "Is 6.02e23 a mole?", "Is 6.02e22 a mole?"),
    (Reason.NUMBERS, "What is 10 minus 4?", "What is 4 minus 10?"),
    (Reason.NUMBERS, "What is 3 + 4 * 2?", "What is 2 + 3 * 4?"),
    (Reason.NUMBERS, "Who was Louis XIV?", "Who was Louis XVI?"),
    (Reason.NUMBERS, "Divide 12 by 4", "Divide 4 by 12"),
    (Reason.NUMBERS, "What is 2 to the power of 3?", "What is 3 to the power of 2?"),
    (Reason.NUMBERS, "What costs at most 20 euros?", "What costs at least 20 euros?"),
    (Reason.NUMBERS, "What costs at most $20?", "What costs at least $20?"),
    (Reason.NUMBERS, "Who has 5 or more goals?", "Who has 5 or fewer goals?"),
    (Reason.NUMBERS, "Is more than 5 ok?", "Is less than 5 ok?"),
    (Reason.NUMBERS, "Which firms began before 1990?", "Which firms began after 1990?"),
    (Reason.NUMBERS, "Who was Henry VIII?", "Who was Henry VII?"),
    (Reason.NUMBERS, "Who directed Psycho?", "Who directed Psycho II?"),
    (Reason.NUMBERS, "What is the first digit?", "What is the last digit?"),
    (Reason.DATES, "When is the last eclipse?", "When is the next eclipse?"),
    (Reason.DATES, "What did they eat in 50 BC?", "What did they eat in 50 AD?"),
    (Reason.DATES, "Is the office open before noon?", "Is the office open after noon?"),
    (Reason.DATES, "What happens at a quarter to nine?", "What happens at a quarter past nine?"),
    (Reason.DATES, "What does half past six mean?", "What does half to six mean?"),
    (Reason.DATES, "Is it at five to noon?", "Is it at five past noon?"),
    (Reason.UNITS, "Is 90 dB dangerous?", "Is 90 dBm dangerous?"),
    (Reason.UNITS, "How much is 5 tonnes of gravel?", "How much is 5 tons of gravel?"),
    (Reason.UNITS, "How long is 20' of rope?", 'How long is 20" of rope?'),
    (Reason.UNITS, "Is 9' high?", 'Is 9" high?'),
    (Reason.UNITS, "What is a nautical mile in metres?", "What is a mile in metres?"),
    (Reason.UNITS, "How big are 5 square metres?", "How big are 5 cubic metres?"),
    (Reason.NEGATION, "Is the water drinkable?", "Is the water hardly drinkable?"),
    (Reason.NEGATION, "Is it legal?", "Is it barely legal?"),
    (Reason.CODE, "What is f(g(x))?", "What is g(f(x))?"),
    (Reason.CODE, "What is a && b || c?", "What is a || b && c?"),
    (Reason.CODE, "Is a B+ good?", "Is a B- good?"),
    (Reason.CODE, "Can A+ give blood?", "Can A- give blood?"),
    (Reason.CODE, "Can AB+ give blood?", "Can AB- give blood?"),
    (Reason.CODE, "What does [a-z]+ match?", "What does [a-z]* match?"),
    (Reason.CODE, r"What does \d+ match?", r"What does \d* match?"),
    (Reason.CODE, "What is 5!?", "What is 5?"),
    (Reason.CODE, "Is it for 18+ only?", "Is it for 18 only?"),
]

GRAMMAR = [  # refused, by whichever reason
    ("What digit is in the row above?", "What digit is in the row below?"),
    ("What did he say before?", "What did he say after?"),
    ("Is the tap inside?", "Is the tap outside?"),
    ("What did he say before?", "What did he say?"),
    ("How tall is a man of 5'9\"?", "How tall is a man of 9'5\"?"),
    ("And her brother?", "And her brothers?"),
    ("Who is Anna's brother?", "Who are Anna's brothers?"),
    ("Which one?", "Which ones?"),
    ("Where did I park?", "Where did we park?"),
    ("Can I bring a few friends?", "Can I bring few friends?"),
    ("How do you spell colour?", "How do you spell color?"),
]

SAME = [
    ("What is the capital of Peru?", "What's Peru's capital?"),
    ("What colour is the circle?", "What color is the circle?"),
    ("How do I organise my favourites?", "How do I organize my favorites?"),
    ("Is there a theatre in the centre?", "Is there a theater in the center?"),
    ("Who travelled to Rome?", "Who traveled to Rome?"),
    ("Where do I renew my licence?", "Where do I renew my license?"),
    ("What is the largest desert?", "What's the biggest desert?"),
    ("What is the largest desert?", "What is the largest desert in the world?"),
    ("Can I bring my dog?", "Am I allowed to bring my dog?"),
    ("What is 5 plus 3?", "What is 3 plus 5?"),
    ("What is 5 plus 3?", "What is 5 + 3?"),
    ("What is 12 divided by 4?", "What is 12 / 4?"),
    ("What is 5 times 3?", "What is 3 multiplied by 5?"),
    ("Which is heavier, 3 or 5?", "Which is heavier, 5 or 3?"),
    ("What is 1e6 divided by 4?", "What is 1,000,000 divided by 4?"),
    ("Who has at least 5 goals?", "Who has 5 or more goals?"),
    ("What happened in World War II?", "What happened in World War 2?"),
    ("How tall is a man of 5'9\"?", "How tall is a man of 5 feet 9 inches?"),
    ("When was the battle in 1066 AD?", "When was the battle in 1066?"),
    ("What is the shape in the top left?", "Which shape is in the top left?"),
    ("What's the weather like in Paris today?", "What is today's weather in Paris?"),
    ("Is the pool open at half past six?", "Is the pool open at half past 6?"),
    ("Who wrote Hamlet?", "Who is the author of Hamlet?"),
    ("How do I track my parcel?", "How do I track my package?"),
]

BY_DESIGN = [  # pass where only values are guarded
    ("Does Anna like Ben?", "Does Ben like Anna?"),
    ("How do I convert PDF to Word?", "How do I convert Word to PDF?"),
    ("Who is the mayor of London?", "Who was the mayor of London?"),
    ("Do all birds fly?", "Do some birds fly?"),
    ("What is my balance?", "What is your balance?"),
]


@pytest.mark.parametrize(("reason", "asked", "cached"), VALUES)
def test_another_value_is_refused_where_only_values_are_guarded(
    reason: Reason, asked: str, cached: str
) -> None:
    for first, second in ((asked, cached), (cached, asked)):
        refusal = OF_VALUES.check(first, second)
        assert refusal is not None
        assert refusal.reason == reason, refusal.detail
        assert GUARDS.check(first, second) is not None


@pytest.mark.parametrize(("asked", "cached"), GRAMMAR)
def test_a_small_word_or_ending_that_changes_the_question_is_refused(
    asked: str, cached: str
) -> None:
    assert GUARDS.check(asked, cached) is not None
    assert GUARDS.check(cached, asked) is not None


@pytest.mark.parametrize(("asked", "cached"), SAME)
def test_another_spelling_or_order_of_a_sum_changes_nothing(asked: str, cached: str) -> None:
    assert GUARDS.check(asked, cached) is None
    assert GUARDS.check(cached, asked) is None


def test_operators_that_are_only_listed_may_change_places() -> None:
    asked, cached = "What is the difference of == and ===?", "What is the difference of === and ==?"
    assert OF_VALUES.check(asked, cached) is None


@pytest.mark.parametrize(("asked", "cached"), BY_DESIGN)
def test_roles_scope_tense_and_person_need_the_other_guards(asked: str, cached: str) -> None:
    assert OF_VALUES.check(asked, cached) is None
    assert GUARDS.check(asked, cached) is not None


@pytest.mark.parametrize(
    "word", ["four", "hour", "your", "flour", "size", "prize", "there", "acre", "sense", "rogue"]
)
def test_a_word_that_only_looks_british_keeps_its_spelling(word: str) -> None:
    assert one_spelling(word) == word


def test_a_huge_exponent_is_no_huge_number() -> None:
    """`format` would write out every digit."""
    assert GUARDS.check("What is 1e999999999?", "What is 1e999999998?") is not None
