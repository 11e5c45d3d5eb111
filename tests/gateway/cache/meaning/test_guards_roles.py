"""This file is about the same words saying something else: by case, order, scope, tense, person.

Found by people who asked what the generated traps don't: each pair was served wrongly once, or is
of a kind that was.
"""

import pytest

from epidote_gateway.cache.meaning.guards.word_guards import WordGuards
from epidote_gateway.cache.policy import GuardsSpec

GUARDS = WordGuards(GuardsSpec())

CASE = [  # the case of a letter
    ("How much light does a 5 mW laser give?", "How much light does a 5 MW laser give?"),
    ("How long does a 100 Mb file take?", "How long does a 100 MB file take?"),
    ("Is 500 mg safe?", "Is 500 Mg safe?"),
    ("How tall is 3 m of snow?", "How tall is 3 M of snow?"),
    ("What is Turkey?", "What is turkey?"),
    ("Where do I find Bill?", "Where do I find bill?"),
    ("Who can help US citizens?", "Who can help us citizens?"),
    ("What does IT do?", "What does it do?"),
    ("What does tar -C do?", "What does tar -c do?"),
    ("Can I use the function Map in Java?", "Can I use the function map in Java?"),
    ("What is the film Alien about?", "What is the film Aliens about?"),
]

ROLES = [  # who does it to whom
    ("Which drug inhibits warfarin?", "Which drug does warfarin inhibit?"),
    ("Who owns Volvo?", "Who does Volvo own?"),
    ("Which countries invaded Germany in 1940?", "Which countries did Germany invade in 1940?"),
    ("Who reports to Anna?", "Who does Anna report to?"),
    ("What follows winter?", "What does winter follow?"),
    ("Is every square a rectangle?", "Is every rectangle a square?"),
    ("Who was paid by Anna?", "Who paid Anna?"),
    ("Was he fired?", "Did he fire?"),
    ("How far is 5 miles from 5 km?", "How far is 5 km from 5 miles?"),
    ("How much do I owe you?", "How much do you owe me?"),
    ("Can they evict us?", "Can we evict them?"),
    ("Is Anna Tom's boss?", "Is Tom Anna's boss?"),
    ("What is my wife's mother called?", "What is my mother's wife called?"),
    ("Can a US citizen work in the UK?", "Can a UK citizen work in the US?"),
    ("Is it better to rent than to buy?", "Is it better to buy than to rent?"),
    ("Can the teacher see what students type?", "Can students see what the teacher types?"),
    ("If it rains, is the match cancelled?", "If the match is cancelled, does it rain?"),
    (
        "What is the time in Tokyo when it is noon in Paris?",
        "What is the time in Paris when it is noon in Tokyo?",
    ),
    ("Who is taller than Ann?", "Who is Ann taller than?"),
    ("What is 7 - 2?", "What is 2 - 7?"),
    ("Which dogs bite?", "Which dogs are bitten?"),
    ("Was the manager fired?", "Did the manager fire anyone?"),
    ("Beißt der Hund den Mann?", "Beißt der Mann den Hund?"),
]

SCOPE = [  # what a not, an only or an all is about
    (
        "Does the insurance cover the driver but not the car?",
        "Does the insurance cover the car but not the driver?",
    ),
    ("I am diabetic, not pregnant. Can I take it?", "I am pregnant, not diabetic. Can I take it?"),
    ("Tom is here. Anna isn't. Who is here?", "Anna is here. Tom isn't. Who is here?"),
    ("Is it not true that he paid?", "Is it true that he did not pay?"),
    (
        "Can I travel with my dog and without my passport?",
        "Can I travel without my dog and with my passport?",
    ),
    ("Can only admins delete users?", "Can admins only delete users?"),
    ("Are all poodles dogs?", "Are all dogs poodles?"),
    (
        "My cat is sick and my dog is fine. What now?",
        "My dog is sick and my cat is fine. What now?",
    ),
    (
        "The lamp is on and the fan is off. Is the fan on?",
        "The lamp is off and the fan is on. Is the fan on?",
    ),
    ("Do both parents need to sign?", "Does either parent need to sign?"),
    ("Darf ich hier parken?", "Darf ich hier nicht parken?"),
]

TENSE_AND_PERSON = [  # when, whose and whether one must
    ("Who is the CEO of Twitter?", "Who was the CEO of Twitter?"),
    ("Is the shop open?", "Will the shop be open?"),
    ("Which of my cards expired?", "Which of my cards expires?"),
    ("What would happen if I quit my job?", "What happened when I quit my job?"),
    ("Can I leave until Friday?", "Can I leave by Friday?"),
    ("If I were rich, what would I buy?", "When I was rich, what did I buy?"),
    ("What does the ticket cost?", "What did the ticket cost?"),
    ("How long does it take to build?", "How long did it take to build?"),
    ("Do you have a dog?", "Do I have a dog?"),
    ("What would you have done?", "What would you do?"),
    ("Do I need a visa for Japan?", "Do you need a visa for Japan?"),
    ("What does he earn?", "What does she earn?"),
    ("What is my balance?", "What is his balance?"),
    ("How often can I take it?", "How often must I take it?"),
    ("Should I tip?", "Must I tip?"),
    ("Do I have a meeting today?", "Do I need a meeting today?"),
    ("Wo ist mein Ausweis?", "Wo war mein Ausweis?"),
]

PLACES_AND_SYMBOLS = [  # places, ranges and versions
    ("Is the office open on Monday?", "Is the office open after Monday?"),
    ("Is the office open until 5 pm?", "Is the office open after 5 pm?"),
    ("Can I park inside the gate?", "Can I park outside the gate?"),
    ("Translate good morning into Spanish", "Translate good morning from Spanish"),
    ("Can children of 12 swim here?", "Can children over 12 swim here?"),
    ("Do I need 3 references?", "Do I need more than 3 references?"),
    ("What happened in World War I?", "What happened in World War II?"),
    ("Is -5 C safe for my pipes?", "Is 5 C safe for my pipes?"),
    ("What is 2^3?", "What is 2*3?"),
    ("What does if (!x) mean?", "What does if (x) mean?"),
    ("What is the regex [^a]?", "What is the regex [a]?"),
    ("Explain march", "Explain March"),
    ("What is the plural of mouse?", "What is the plural of mice?"),
    ("What is the opposite of buy?", "What is the opposite of purchase?"),
]

SAME = [
    ("Who is the president of Brazil?", "Who is Brazil's president?"),
    ("How tall is Mount Everest?", "What is Mount Everest's height?"),
    ("How much is a single ticket?", "What does a single ticket cost?"),
    ("Are pets allowed in the rooms?", "Do you allow pets in the rooms?"),
    ("My phone does not turn on", "My phone won't turn on"),
    ("I can't log in", "I am unable to log in"),
    ("Why is the sky blue?", "What makes the sky blue?"),
    ("How long does the warranty last?", "How long is the warranty?"),
    ("I wonder what happens if I lose my card", "If I lose my card, what happens?"),
    ("increase the volume", "can my volume be increased"),
    ("Do you have vegan options?", "Are there vegan options?"),
    ("What is the speed limit in Peru?", "In Peru, what is the speed limit?"),
    ("How do I reset my router?", "How can I reset my router?"),
    ("Which building in Dubai is the tallest?", "What is the tallest building in Dubai?"),
    ("Why isn't my phone charging?", "Why is my phone not charging?"),
    ("How do I turn the wifi off?", "How do I turn off the wifi?"),
    ("Will I get a refund if I cancel?", "Do I get a refund if I cancel?"),
    ("How do you boil an egg?", "How do I boil an egg?"),
    ("When did the war end?", "In what year did the war end?"),
    ("How old do I have to be to vote?", "What age must I be to vote?"),
    ("Can I deduct all home office expenses?", "Can I deduct all expenses of my home office?"),
    ("Is the museum open on Christmas Eve?", "Will the museum be open on Christmas Eve?"),
    ("What is 15% of $480?", "How much is 15 percent of 480 dollars?"),
    ("how tall is mont blanc", "How tall is Mont Blanc?"),
    ("what shoe size is it", "what size shoe is it"),
    ("Which films were made by Fellini in 1960?", "In 1960, which films were made by Fellini?"),
    ("Is a 20 kW charger fast?", "is a 20 kw charger fast"),
    ("Who founded Volvo?", "Who is the founder of Volvo?"),
    ("Do I have to pay tax on tips?", "Must I pay tax on tips?"),
]


@pytest.mark.parametrize(
    ("asked", "cached"), [*CASE, *ROLES, *SCOPE, *TENSE_AND_PERSON, *PLACES_AND_SYMBOLS]
)
def test_the_same_words_that_ask_something_else_are_refused(asked: str, cached: str) -> None:
    assert GUARDS.check(asked, cached) is not None
    assert GUARDS.check(cached, asked) is not None


@pytest.mark.parametrize(("asked", "cached"), SAME)
def test_moving_a_whole_part_or_the_voice_of_the_asker_changes_nothing(
    asked: str, cached: str
) -> None:
    assert GUARDS.check(asked, cached) is None
    assert GUARDS.check(cached, asked) is None
