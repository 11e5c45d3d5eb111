"""This file is about what verbs and pronouns say: when, who to whom, may or must."""

from collections.abc import Mapping, Sequence

from epidote_gateway.cache.meaning.guards.lexicon import IRREGULAR_PAST, groups, words
from epidote_gateway.cache.meaning.guards.question_token import Token

AUXILIARIES = words(
    """
    is are was were am do does did can could will would should shall must has have had may might
    """
)
_PRESENT = words("is are am do does can may must 's 're 'm")
_BE = words("is are am was were be been being")
_LETS = words("get got gets getting have has had having")  # get the tyres changed
_PAST = words("was were did had")
_FUTURE = words("will shall 'll")
_BEFORE_IS = words("what who where when why how it he she that there here this")
_UNREAL = words("would could should might")
PERSONS = groups(
    """
    first i me we us myself ourselves
    second you u yourself
    he him himself
    she her herself
    they them themselves
    it
    """
)
STRANGERS = frozenset({"second", "he", "she"})  # who asks is meant where nobody is named
_SIDES = words("top bottom upper lower far the on my your")  # in the top left
_THIRD = words("his her their 's")
_MODALS = groups(
    """
    must have-to required
    should ought
    can could may might able
    """
)
_MAIN_VERBS = words("need have get give want know learn ask help show tell require")


def is_past_form(written: str) -> bool:
    """Past tense or participle, as far as it shows."""
    word = written.lower()
    return word in IRREGULAR_PAST or (len(word) > 4 and word.endswith("ed"))


def tense(written: Sequence[str]) -> str:
    """past, future, unreal (would have), present; "" where no auxiliary says it."""
    low = [word.lower() for word in written]
    if "if" in low and _UNREAL & set(low) and _PAST & set(low):
        return "unreal"  # if I were rich, what would I buy
    for place, word in enumerate(low):
        rest = [*low[place + 1 :], "", ""]
        if word in _UNREAL and "have" in rest[:4]:
            participle = rest[rest.index("have") + 1]
            if participle == "been" or is_past_form(participle):
                return "unreal"
        if word in _FUTURE:
            has_condition = "if" in low or "when" in low[1:]
            is_refusal = rest[0] == "not"  # it won't start
            return "present" if has_condition or is_refusal else "future"
        if word in ("is", "are", "am") and "going" in rest[:4]:
            going = rest.index("going")
            return "future" if rest[going + 1 : going + 2] == ["to"] else "present"
        if word in ("has", "have", "'ve") and any(
            is_past_form(other) or other == "been" for other in rest[:4]
        ):
            return "past"
        if word in _PAST or (word == "used" and rest[0] == "to" and place > 0):
            return "past"
        is_owner = word == "'s" and low[place - 1] not in _BEFORE_IS  # Italy's, and not it's
        if (word in _PRESENT or word in _UNREAL) and not is_owner:
            return "present"
    return ""


def persons(said: Sequence[str], focus: str) -> tuple[str, ...]:
    """Who is named, in order: `do I owe you` and `do you owe me` differ.

    Who stands right behind `how do` is anybody: how do I, how do you, how does one.
    """
    found: list[str] = []
    for place, word in enumerate(said):
        person = PERSONS.get(word)
        if person is None or (found and found[-1] == person):
            continue
        is_anybody = place <= 3 and "how" in said[:2] and not focus.startswith("how ")
        if not (is_anybody and person in ("first", "second") and not found):
            found.append(person)
    return tuple(found)


def modality(said: Sequence[str]) -> str:
    """must, should or can: the first that is said; "" if none is."""
    text = " ".join(said).replace("have to", "have-to")
    return next((_MODALS[word] for word in text.split() if word in _MODALS), "")


def main_verbs(said: Sequence[str]) -> frozenset[str]:
    """Of the verbs that mostly say nothing, those that are here what is asked: do I need, have."""
    return frozenset("need" if word == "require" else word for word in said if word in _MAIN_VERBS)


def passives(written: Sequence[str], said: Sequence[str]) -> frozenset[str]:
    """Verbs in the passive, canonical: is used, was he fired."""
    low = [word.lower() for word in written]
    return frozenset(
        word
        for place, word in enumerate(said)
        if not (low[place] == "left" and place and low[place - 1] in _SIDES)
        and is_past_form(written[place])
        and (_BE | _LETS) & set(low[max(0, place - 4) : place])
    )


def past_forms(content: Mapping[str, str]) -> frozenset[str]:
    """Content words in a past form; `content` is canonical form to written."""
    return frozenset(value for value, written in content.items() if is_past_form(written))


def plurals(tokens: Sequence[Token], said: Sequence[str]) -> Mapping[str, bool]:
    """Of nouns that somebody else owns, and of `one`: whether more than one is meant.

    How many there are is asked with them; `my password` and `my passwords` get one answer.
    """
    found: dict[str, bool] = {}
    for place, (token, word) in enumerate(zip(tokens, said, strict=True)):
        low = token.written.lower()
        if low in ("one", "ones") and place and said[place - 1] in ("which", "the", "other"):
            found["one"] = low == "ones"
        elif place and said[place - 1] in _THIRD and low:
            found[word] = low != word and low.endswith("s")
    return found


def asker(written: Sequence[str]) -> str:
    """`I` or `we` of a question about the past: what happened to one or to several."""
    low = [word.lower() for word in written]
    named = {"i", "we"} & set(low)
    is_past = any(word in _PAST for word in low)
    return next(iter(named)) if is_past and len(named) == 1 else ""
