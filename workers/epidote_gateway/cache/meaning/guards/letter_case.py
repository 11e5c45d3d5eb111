"""This file is about letter case where it tells words apart: Turkey and turkey, Map and map."""

import re
from collections.abc import Mapping, Sequence

from epidote_gateway.cache.meaning.guards.question_token import Kind, Token

SHORT = 3  # letters of a word that is compared letter by letter: CO and Co
LONG_WORD = 4
_I = re.compile(r"\bI\b")  # a capital that all write


def letter_cases(
    text: str, tokens: Sequence[Token], content: Sequence[tuple[int, Token]]
) -> Mapping[str, str]:
    """For each content word how its letters are, where the writer's case tells something.

    Nothing where all is lower case, all capitals, or every word begins with one. A word that begins
    a sentence tells nothing, nor one that occurs in both ways.
    """
    spoken = _I.sub("", text)
    inner = [token.written for place, token in content if token.written and place > 0]
    long = [word for word in inner if len(word) >= LONG_WORD]
    is_title = len(long) > 1 and all(word[0].isupper() for word in long)
    if is_title or text.isupper() or not any(letter.isupper() for letter in spoken):
        return {}
    found: dict[str, str] = {}
    for place, token in content:
        word = token.written
        begins = place == 0 or tokens[place - 1].kind is Kind.BREAK
        begins |= text.lstrip().startswith(word)  # behind a phrase that was taken out
        if token.kind is not Kind.WORD or not word or begins:
            continue
        case = word if len(word) <= SHORT else "Aa" if word[0].isupper() else "aa"
        if case == "Aa" and word.endswith("s") and not token.value.endswith("s"):
            case = "Aas"  # a name is not the plural of another: Alien and Aliens
        if found.setdefault(token.value, case) != case:
            found[token.value] = ""
    return {value: case for value, case in found.items() if case}
