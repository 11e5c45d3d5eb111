"""Prompts that can't fit: refused before they are tokenised, and nobody waits for long ones."""

import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from epidote_core.errors import InvalidRequest
from epidote_engine.processing import PromptProcessor
from epidote_engine.tokenizer import TextTokenizer, byte_alphabet

DEMO = Path(__file__).parents[2] / "workers" / "epidote_workers" / "demo_model"


@pytest.fixture(scope="module")
def demo() -> PromptProcessor:
    return PromptProcessor.from_model(str(DEMO))


def byte_level(path: Path, **changes: Any) -> TextTokenizer:
    """A tokenizer of bytes and one token of eight spaces, with attributes replaced."""
    vocab = {char: number for number, char in enumerate(byte_alphabet())}
    merges = []
    for length in (1, 2, 4):
        vocab["Ġ" * 2 * length] = len(vocab)
        merges.append(("Ġ" * length, "Ġ" * length))
    made = Tokenizer(models.BPE(vocab, merges))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    made.decoder = decoders.ByteLevel()
    for name, value in changes.items():
        if name == "added":
            made.add_special_tokens([value])
        else:
            setattr(made, name, value)
    path.mkdir(exist_ok=True)
    made.save(str(path / "tokenizer.json"))
    return TextTokenizer(path)


def test_the_longest_token_bounds_the_characters_of_each(tmp_path: Path) -> None:
    assert byte_level(tmp_path).max_chars_per_token == 8
    assert byte_level(tmp_path, normalizer=normalizers.NFC()).max_chars_per_token == 16
    special = AddedToken("<|twelve_ch|>")
    assert byte_level(tmp_path, added=special).max_chars_per_token == len("<|twelve_ch|>")


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": normalizers.Strip()},
        {"normalizer": normalizers.NFKC()},
        {"decoder": decoders.WordPiece()},
        {"added": AddedToken("<s>", lstrip=True)},
        {"pre_tokenizer": pre_tokenizers.Whitespace()},
        {"pre_tokenizer": pre_tokenizers.Sequence(
            [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel()]
        )},
    ],
    ids=str,
)  # fmt: skip
def test_who_may_drop_characters_has_no_bound(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert byte_level(tmp_path, **changes).max_chars_per_token is None


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("a \u0055\u0308\u0304\u03b1\u0313\u0300\u0345漢🙂"), max_size=300))
def test_no_text_has_fewer_tokens_than_the_bound_says(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "nfc"
    tokenizer = byte_level(path, normalizer=normalizers.NFC())
    assert tokenizer.max_chars_per_token is not None
    num_tokens = len(tokenizer.encode(text, add_special_tokens=False))
    assert len(text) <= num_tokens * tokenizer.max_chars_per_token


@pytest.mark.parametrize("length", [10, 4095, 4096, 9000])
def test_long_texts_have_the_tokens_of_short_ones(demo: PromptProcessor, length: int) -> None:
    text = ("3 red circles, ü 漢 <|im_end|>\n" * 300)[:length]
    fast = Tokenizer.from_file(str(DEMO / "tokenizer.json"))
    assert demo.tokenize(text, add_special_tokens=True) == fast.encode(text).ids


def test_what_cant_fit_is_refused_untokenised(
    demo: PromptProcessor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("tokenised")

    monkeypatch.setattr(TextTokenizer, "encode", fail)
    text = "a b " * 1_000_000
    for field, render in (
        ("messages", lambda: demo.render_chat([{"role": "user", "content": text}])),
        ("prompt", lambda: demo.render_text(text)),
        ("prompt", lambda: demo.tokenize(text, add_special_tokens=True)),
    ):
        with pytest.raises(InvalidRequest, match="characters") as caught:
            render()
        assert caught.value.field == field


def test_spellings_of_placeholders_cost_no_room(demo: PromptProcessor) -> None:
    longest = demo._tokenizer.max_chars_per_token
    assert longest is not None
    room = longest * demo.max_model_len // len("<|image_pad|>") - 50
    rendered = demo.render_chat([{"role": "user", "content": "<|image_pad|>" * room}])
    assert len(rendered.token_ids) > room  # of ordinary tokens; longer than the model or not


def test_other_threads_run_while_a_long_text_is_tokenised() -> None:
    tokenizer = TextTokenizer(DEMO)
    text = "a b " * 100_000
    begun, done = threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        tokenizer.encode(text, add_special_tokens=False)
        done.set()

    thread = threading.Thread(target=work)
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(60)  # nobody is made to let go of the interpreter
    try:
        thread.start()
        begun.wait()  # until the other thread lets go of it: within the work, or at its end
        was_done = done.is_set()
        thread.join()
    finally:
        sys.setswitchinterval(interval_s)
    assert done.is_set()
    assert not was_done
