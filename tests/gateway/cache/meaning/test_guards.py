"""This file is about pairs of questions that a sentence model takes for one another, and pairs that
only look different."""

from time import thread_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epidote_gateway.cache.meaning.guards.languages import language_of
from epidote_gateway.cache.meaning.guards.word_guards import MAX_CHARACTERS, WordGuards
from epidote_gateway.cache.policy import Guard, GuardsSpec
from epidote_gateway.cache.protocols import Reason

GUARDS = WordGuards(GuardsSpec())

DIFFERENT = [
    (Reason.NUMBERS, "who won in 2019", "who won in 2020"),
    (Reason.NUMBERS, "feed twelve guests", "feed 20 guests"),
    (Reason.NUMBERS, "what is new in Python 3.1", "what is new in Python 3.10"),
    (Reason.NUMBERS, "a room for 2 adults and 3 kids", "a room for 3 adults and 2 kids"),
    (Reason.NUMBERS, "5 minutes of yoga", "yoga"),
    (Reason.DATES, "am I free on Monday", "am I free on Tuesday"),
    (Reason.DATES, "what happened on March 5 2020", "what happened on 2020-05-03"),
    (Reason.DATES, "is it open at 7 am", "is it open at 7pm"),
    (Reason.DATES, "weather today in Rome", "weather tomorrow in Rome"),
    (Reason.UNITS, "how far is 5 miles", "how far is 5 km"),
    (Reason.UNITS, "what is $20 worth", "what is €20 worth"),
    (Reason.UNITS, "bake it at 200 C", "bake it at 200 F"),
    (Reason.NEGATION, "is it safe to eat", "is it not safe to eat"),
    (Reason.NEGATION, "why does it start", "why doesn't it start"),
    (Reason.NEGATION, "how to enable 2-factor login", "how to disable 2-factor login"),
    (Reason.NEGATION, "install the driver", "uninstall the driver"),
    (Reason.NEGATION, "turn on the light", "turn off the light"),
    (Reason.NEGATION, "coffee with sugar", "coffee without sugar"),
    (Reason.QUANTIFIERS, "delete all mails", "delete only mails"),
    (Reason.QUANTIFIERS, "tea or coffee for guests", "tea and coffee for guests"),
    (Reason.NUMBERS, "at least two eggs", "at most two eggs"),
    (Reason.QUANTIFIERS, "flights from Paris to Rome", "flights from Rome to Paris"),
    (Reason.QUANTIFIERS, "the train from Oslo", "the train to Oslo"),
    (Reason.QUANTIFIERS, "Did Google buy YouTube?", "Did YouTube buy Google?"),
    (Reason.QUANTIFIERS, "is a cat bigger than a fox", "is a fox bigger than a cat"),
    (Reason.QUANTIFIERS, "when was Tesla born", "where was Tesla born"),
    (Reason.QUANTIFIERS, "why is the sky blue", "is the sky blue"),
    (Reason.QUANTIFIERS, "who won the cup", "who will win the cup"),
    (Reason.QUANTIFIERS, "should I take aspirin", "can I take aspirin"),
    (Reason.ENTITIES, "capital of France", "capital of Germany"),
    (Reason.ENTITIES, "how long do I boil eggs", "how long do I boil potatoes"),
    (Reason.ENTITIES, "what is my name", "what is your name"),
    (Reason.ENTITIES, "how many employees are there", "how many employees are there in Berlin"),
    (Reason.ENTITIES, "is swimming good for back pain", "is swimming good for chronic back pain"),
    (Reason.LANGUAGE, "how do I reset it", "wie setze ich das zurück"),
    (Reason.CODE, "what does `df.head()` do", "what does `df.tail()` do"),
    (Reason.CODE, "difference of == and ===", "difference of == and !="),
    (Reason.CODE, "is GPT-4 good", "is GPT-5 good"),
    (Reason.CODE, "how to use --force", "how to use --force-with-lease"),
    (Reason.CODE, "what is vitamin C", "what is vitamin D"),
    (Reason.CODE, "open /etc/hosts", "open /etc/passwd"),
]

SAME = [
    ("What is the capital of France?", "tell me France's capital"),
    ("How do I reset my password?", "what's the best way to reset my password"),
    ("How much does a taxi to the airport cost?", "what is the price of a taxi to the airport"),
    ("how can I sort a list in python", "In Python, how do I sort a list?"),
    ("How do I sign up for the newsletter?", "how to register for the newsletter"),
    ("when does the store open", "what time does the shop open"),
    ("how long should I boil an egg?", "how much time do I need to boil an egg"),
    ("How do I delete my account?", "I want to remove my account, how?"),
    ("is wifi free in the hotel", "is the Wi-Fi in the hotel free"),
    ("What happened on March 5th, 2020?", "what happened on 2020-03-05?"),
    ("meet me at 5pm", "meet me at 17:00"),
    ("how many people live in Rome", "what is the number of people who live in Rome"),
    ("20 kilometers in 2 hours", "twenty km in two hours"),
    ("1,000 dollars", "$1000"),
    ("who directed Heat", "who is the director of Heat"),
    ("who directed the movie Heat", "who directed Heat"),
    ("flights from Paris to Rome", "flights to Rome from Paris"),
    ("can you tell me how old the Pope is", "how old is the Pope?"),
    ("I don't know how to tie a tie", "how do I tie a tie"),
    ("what can't dogs eat", "what can dogs not eat"),
]


@pytest.mark.parametrize(("reason", "asked", "cached"), DIFFERENT)
def test_a_difference_that_matters_is_refused_with_its_reason(
    reason: Reason, asked: str, cached: str
) -> None:
    for first, second in ((asked, cached), (cached, asked)):
        refusal = GUARDS.check(first, second)
        assert refusal is not None
        assert refusal.reason == reason, refusal.detail


@pytest.mark.parametrize(("asked", "cached"), SAME)
def test_a_paraphrase_passes(asked: str, cached: str) -> None:
    assert GUARDS.check(asked, cached) is None
    assert GUARDS.check(cached, asked) is None


@pytest.mark.parametrize("reason", [reason for reason in Reason if reason != "second-check"])
def test_a_guard_that_is_off_does_not_refuse(reason: Reason) -> None:
    guards = WordGuards(GuardsSpec.model_validate({reason.value: False}))
    for wanted, asked, cached in DIFFERENT:
        refusal = guards.check(asked, cached)
        assert refusal is None or refusal.reason != reason
        if wanted != reason:
            assert refusal is not None


def test_a_category_lets_differ_what_its_guards_do_not_name() -> None:
    guards = WordGuards(GuardsSpec(dates=False), [Guard.NUMBERS, Guard.DATES])
    for reason, asked, cached in DIFFERENT:
        refusal = guards.check(asked, cached)
        assert (refusal is not None and refusal.reason) == (reason == "numbers" and reason)
    assert WordGuards(GuardsSpec(), []).check("who won in 2019", "who lost in 2020") is None


WORDS = ["how", "many", "2", "two", "km", "from", "to", "Rome", "Paris", "not", "`x`", "5pm", "or"]
QUESTIONS = st.one_of(
    st.text(max_size=200), st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)
)


@settings(max_examples=60)
@given(QUESTIONS, QUESTIONS)
@example("::::0A", "0::::::0")
def test_any_two_texts_are_judged_alike_in_either_order(asked: str, cached: str) -> None:
    there, back = GUARDS.check(asked, cached), GUARDS.check(cached, asked)
    assert (there and there.reason) == (back and back.reason)


@settings(max_examples=60)
@given(QUESTIONS)
def test_any_text_agrees_with_itself_and_its_spacing(text: str) -> None:
    assert GUARDS.check(text, text) is None
    assert GUARDS.check(f"  {text}", text) is None


def test_of_scripts_that_are_equally_many_the_first_counts_in_every_process() -> None:
    assert [language_of(text) for text in ("жλ", "λж", "λжж")] == ["cyrillic", "greek", "cyrillic"]


def test_questions_too_long_to_compare_agree_only_if_equal() -> None:
    long = "how many rooms has the house " * 500
    assert GUARDS.check(long, long) is None
    assert GUARDS.check(long, long + " and the garden") is not None
    assert GUARDS.check("how many rooms has the house", long) is not None


@pytest.mark.parametrize(
    "piece", ["a.", "a_", "/a", "1,1", "`", '"', "--a", "how long does ", "a@"]
)
def test_no_text_takes_long_to_read(piece: str) -> None:
    """Twice the text, some twice the time: nothing goes back and forth over the whole text."""
    text = piece * (MAX_CHARACTERS // len(piece))
    taken_s = []
    for cut in range(3):  # the garbage of other tests may be collected in one of them
        started_s = thread_time()
        assert GUARDS.check(text[cut:], "x") is not None
        taken_s.append(thread_time() - started_s)
    assert min(taken_s) < 2.0
