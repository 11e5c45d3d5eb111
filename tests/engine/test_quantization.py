"""Weights in 8 bits: near the originals, the same product for few rows and many, refused where not
possible. On a CPU float16 has plain weights; a GPU quantises any type."""

from pathlib import Path

import pytest
import torch

from epidote_core.errors import InvalidRequest
from epidote_core.generation import GenerateRequest
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.layers.linear import Linear
from epidote_engine.layers.quantized_linear import FEW_ROWS, KINDS, QuantizedLinear
from epidote_engine.model_files import InvalidModel
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import save_tiny_model


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("biased", [False, True])
def test_few_rows_and_many_see_the_same_weight(kind: str, biased: bool) -> None:
    torch.manual_seed(0)
    weight = torch.randn(40, 24).half()
    plain = Linear(weight, torch.randn(40).half() if biased else None)
    layer = QuantizedLinear(plain, KINDS[kind])
    x = torch.randn(FEW_ROWS + 1, 24).half()
    many, few = layer(x), layer(x[:FEW_ROWS])
    torch.testing.assert_close(few, many[:FEW_ROWS], rtol=1e-2, atol=2e-2)
    error = torch.linalg.vector_norm((many - plain(x)).float())
    assert 0 < error < (0.01 if kind == "int8" else 0.04) * torch.linalg.vector_norm(many.float())
    activated = layer(x[:2], activation="silu")
    torch.testing.assert_close(activated, torch.nn.functional.silu(layer(x[:2])))


def test_an_engine_in_8_bits_is_near_the_one_in_16(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=3)
    request = GenerateRequest(
        request_id="a",
        prompt_token_ids=tuple(range(FEW_ROWS + 9)),  # a chunk that takes the widened weight
        sampling=SamplingParams(max_tokens=5, temperature=0.0, logprobs=3, ignore_eos=True),
    )
    told = []
    for quantization in (None, "int8", "fp8"):
        config = EngineConfig(
            model=str(path), dtype="float16", num_kv_blocks=20, quantization=quantization
        )
        told.append(serve(Engine(config), [request])["a", 0].logprobs)
    assert all(len(found) == 5 for found in told)
    first = [found[0].top[0][1] for found in told]
    assert first[1] == pytest.approx(first[0], abs=0.3)
    assert first[2] == pytest.approx(first[0], abs=0.6)
    assert first[1] != first[0] != first[2]


def test_where_8_bits_are_not_possible_the_engine_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=3)
    if not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN: plain weights everywhere")
    with pytest.raises(InvalidRequest, match="quantization: on a CPU with dtype float16 only"):
        Engine(EngineConfig(model=str(path), dtype="float32", num_kv_blocks=9, quantization="fp8"))
    with pytest.raises(InvalidRequest, match="quantization: cannot be 'int4'"):
        EngineConfig(model=str(path), quantization="int4")


@pytest.mark.parametrize("kind", [torch.int8, torch.float8_e4m3fn])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(kind: torch.dtype, number: float) -> None:
    weight = torch.randn(6, 16).half()
    weight[4, 3] = number
    with pytest.raises(InvalidModel, match="quantization: the model's weights hold NaN or"):
        QuantizedLinear(Linear(weight), kind)
