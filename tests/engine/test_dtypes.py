"""Which number type "auto" comes to."""

from dataclasses import replace

import pytest
import torch

from epidote_engine.config import load_model_spec
from epidote_engine.dtypes import computing_dtype
from epidote_engine.settings import EngineConfig


@pytest.mark.parametrize(
    ("asked", "device", "hidden", "comes_to"),
    [
        ("auto", "cpu", 192, torch.float32),  # the demo model is stored in bfloat16
        ("auto", "cuda", 192, torch.bfloat16),
        ("auto", "cpu", 8192, torch.bfloat16),
        ("bfloat16", "cpu", 192, torch.bfloat16),
        ("float16", "cuda", 192, torch.float16),
    ],
)
def test_a_small_model_on_a_cpu_is_computed_in_float32_unless_told(asked, device, hidden, comes_to):
    spec = load_model_spec("demo")
    spec = replace(spec, text={**spec.text, "hidden_size": hidden})
    config = EngineConfig(model="demo", dtype=asked, device=device)
    assert computing_dtype(spec, config) is comes_to
