"""When a choice ends, and that no part of a stop string is ever shown."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.generation import FinishReason
from epidote_core.sampling import SamplingParams
from epidote_engine.stop import OutputText

EOS = 99


class Letters:
    """A stream whose token i is chr(i); 7 stands for half a character that never ends."""

    def __init__(self) -> None:
        self.half = ""

    def push(self, token_id: int) -> str:
        if token_id == 7:
            self.half = "?"
            return ""
        return chr(token_id)

    def finish(self) -> str:
        return self.half


def output(max_tokens: int = 50, **sampling) -> OutputText:
    return OutputText(
        SamplingParams(max_tokens=max_tokens, **sampling),
        Letters(),
        eos_token_ids=(EOS,),
        max_outputs=max_tokens,
    )


def said(text: OutputText, tokens):
    """(joined text, reason, stop reason, number of tokens taken)."""
    shown = ""
    for number, token in enumerate(tokens, 1):
        verdict = text.push(ord(token) if isinstance(token, str) else token)
        shown += verdict.text
        if verdict.finish_reason is not None:
            return shown, verdict.finish_reason, verdict.stop_reason, number
    return shown, None, None, len(tokens)


CASES = [
    (["a", "b", EOS], {}, ("ab", FinishReason.STOP, None, 3)),
    (["a", EOS, "b"], {"ignore_eos": True}, ("acb", None, None, 3)),
    ("abc", {"max_tokens": 2}, ("ab", FinishReason.LENGTH, None, 2)),
    ("abc", {"stop_token_ids": (98,)}, ("a", FinishReason.STOP, 98, 2)),
    (
        "abc",
        {"stop_token_ids": (98,), "include_stop_str_in_output": True},
        ("ab", FinishReason.STOP, 98, 2),
    ),
    ("so END", {"stop": ("END",)}, ("so ", FinishReason.STOP, "END", 6)),
    (
        "so END",
        {"stop": ("END",), "include_stop_str_in_output": True},
        ("so END", FinishReason.STOP, "END", 6),
    ),
    ("aEN", {"stop": ("END",)}, ("a", None, None, 3)),  # held back: it may go on
    ("aENb", {"stop": ("END",)}, ("aENb", None, None, 4)),
    ("aEN", {"stop": ("END",), "max_tokens": 3}, ("aEN", FinishReason.LENGTH, None, 3)),
    (["a", "E", EOS], {"stop": ("END",)}, ("aE", FinishReason.STOP, None, 3)),
    ("aab", {"stop": ("b",), "min_tokens": 3}, ("aa", FinishReason.STOP, "b", 3)),
    ("bab", {"stop": ("b",), "min_tokens": 2}, ("ba", FinishReason.STOP, "b", 3)),
    (["a", 7], {"max_tokens": 2}, ("a?", FinishReason.LENGTH, None, 2)),
    ("xabay", {"stop": ("abab", "bay")}, ("xa", FinishReason.STOP, "bay", 5)),
]


@pytest.mark.parametrize(("tokens", "sampling", "expected"), CASES)
def test_ends(tokens, sampling, expected):
    assert said(output(**sampling), tokens) == expected


alphabet = st.sampled_from("ab")


@given(
    text=st.text(alphabet, max_size=30),
    stops=st.lists(st.text(alphabet, min_size=1, max_size=4), min_size=1, max_size=3),
    cuts=st.lists(st.integers(1, 4), max_size=30),
)
def test_what_is_shown_is_the_text_before_the_first_stop(text, stops, cuts):
    """However the text is cut into pieces; a stop string is found when it is complete."""

    class Pieces:
        def push(self, token_id: int) -> str:
            return pieces[token_id]

        def finish(self) -> str:
            return ""

    pieces, rest = [], text
    for cut in [*cuts, *[1] * len(text)]:
        if rest:
            pieces.append(rest[:cut])
            rest = rest[cut:]
    sampling = SamplingParams(max_tokens=len(pieces) + 1, stop=tuple(stops))
    stream = OutputText(sampling, Pieces(), eos_token_ids=(), max_outputs=len(pieces) + 1)
    shown = ""
    for number in range(len(pieces)):
        verdict = stream.push(number)
        shown += verdict.text
        seen = "".join(pieces[: number + 1])
        first = min((seen.find(stop) for stop in stops if stop in seen), default=None)
        assert (verdict.finish_reason is not None) == (first is not None)
        if first is not None:
            assert shown == seen[:first]
            return
        assert seen.startswith(shown)
