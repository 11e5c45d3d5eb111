"""Models by themselves against transformers' generate(): pictures and videos, token for token."""

import pytest
import torch

from epidote_engine.config import load_model_spec
from epidote_engine.one_sequence import OneSequence

MIXES = ["ti", "i", "tiit", "v", "ivt", "t", "titvi"]  # text, image, video in order


@pytest.fixture(scope="module")
def model(vl_case):
    return OneSequence(load_model_spec(vl_case.path), dtype=torch.float32)


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("chunk_tokens", [None, 7])
def test_tokens_are_those_of_transformers(model, vl_case, mix, chunk_tokens):
    """Chunks of 7 cut every picture somewhere in its middle."""
    prompt = vl_case.prompt(mix)
    tokens, _ = model.generate(
        prompt.rendered.token_ids,
        prompt.rendered.media,
        prompt.media,
        num_tokens=12,
        chunk_tokens=chunk_tokens,
    )
    vl_case.check(prompt, tokens)


def test_other_pictures_give_other_answers(model, vl_case):
    """Else the comparison above could pass with every picture ignored."""
    answers = set()
    for _ in range(4):
        prompt = vl_case.prompt("i")
        tokens, _ = model.generate(
            prompt.rendered.token_ids, prompt.rendered.media, prompt.media, num_tokens=12
        )
        answers.add(tuple(tokens))
    assert len(answers) > 1
