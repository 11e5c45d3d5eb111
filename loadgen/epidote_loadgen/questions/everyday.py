"""This file is about questions that need no picture: sums, and facts everyone knows."""

from random import Random

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


def arithmetic(rng: Random) -> tuple[str, str]:
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


def fact(rng: Random) -> tuple[str, str]:
    ways, answer = rng.choice(FACTS)
    return rng.choice(ways), answer
