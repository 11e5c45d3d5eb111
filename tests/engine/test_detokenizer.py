"""Text as it streams equals the tokenizer's decoding of everything, whatever the tokens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from epidote_engine.detokenizer import Vocabulary
from epidote_engine.tokenizer import byte_alphabet

SPECIAL = [AddedToken("<|end|>", special=True)]
PLAIN_ADDED = [AddedToken("<think>", special=False), AddedToken("ünd", special=False)]


def byte_level() -> Tokenizer:
    alphabet = {byte: char for char, byte in byte_alphabet().items()}
    words = ["é", "日本", "🙂", " the", "\n\n"]
    spelled = ["".join(alphabet[b] for b in word.encode()) for word in words]
    pieces = [*byte_alphabet(), *dict.fromkeys(s for s in spelled if len(s) > 1)]
    tokenizer = Tokenizer(models.BPE(vocab={p: i for i, p in enumerate(pieces)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return with_added(tokenizer)


def sentencepiece(*, strip: bool) -> Tokenizer:
    words = ["<unk>", "▁the", "▁", "a", "é", "日", "▁▁▁", "<0xZZ>"]
    pieces = [*words, *(f"<0x{i:02X}>" for i in range(256))]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={p: i for i, p in enumerate(pieces)},
            merges=[],
            byte_fallback=True,
            unk_token="<unk>",
        )
    )
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] * strip)])
    return with_added(tokenizer)


def word_piece() -> Tokenizer:
    words = ["[UNK]", "play", "##ing", "##ed", ".", "'", "s", "é"]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}))
    tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return with_added(tokenizer)


def with_added(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.add_tokens(PLAIN_ADDED)
    return tokenizer


TOKENIZERS = {
    "byte level": byte_level(),
    "sentencepiece": sentencepiece(strip=False),
    "sentencepiece, first space stripped": sentencepiece(strip=True),
    "word piece": word_piece(),
}


@pytest.mark.parametrize("name", TOKENIZERS)
@given(data=st.data())
def test_joined_pieces_equal_the_whole_text(name, data):
    tokenizer = TOKENIZERS[name]
    size = tokenizer.get_vocab_size()
    ids = data.draw(st.lists(st.integers(0, size + 2), max_size=40))  # some are nobody's
    stream = Vocabulary(tokenizer).stream()
    pieces = [stream.push(token_id) for token_id in ids]
    known = [i for i in ids if i < size]
    assert "".join([*pieces, stream.finish()]) == tokenizer.decode(known, skip_special_tokens=True)


@given(text=st.text(max_size=30))
def test_valid_text_never_shows_half_a_character(text):
    tokenizer = TOKENIZERS["byte level"]
    stream = Vocabulary(tokenizer).stream()
    shown = ""
    for token_id in tokenizer.encode(text).ids:
        shown += stream.push(token_id)
        assert text.startswith(shown)
    assert shown + stream.finish() == tokenizer.decode(tokenizer.encode(text).ids)


def test_an_unfinished_character_shows_at_the_end_only():
    tokenizer = TOKENIZERS["byte level"]
    stream = Vocabulary(tokenizer).stream()
    first, *_rest = tokenizer.encode("é").ids
    assert stream.push(first) == ""
    assert stream.finish() == "\N{REPLACEMENT CHARACTER}"
