"""Products with 8-bit weights equal their twins, in Triton's interpreter."""

import pytest
import torch

from epidote_kernels import ops, quantized_linear, reference

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
INT8, FP8 = torch.int8, torch.float8_e4m3fn
TOLERANCE = {FP32: 2e-5, FP16: 4e-3, BF16: 3e-2}


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("kind", [INT8, FP8])
@pytest.mark.parametrize(
    ("rows", "columns", "depth"), [(0, 3, 8), (1, 1, 1), (16, 65, 129), (17, 64, 300), (65, 9, 40)]
)
def test_products(
    rows: int, columns: int, depth: int, kind: torch.dtype, dtype: torch.dtype
) -> None:
    torch.manual_seed(5)
    x = torch.randn(rows, depth).to(dtype)
    weight, scales = ops.quantize_weight(torch.randn(columns, depth), kind)
    got = ops.quantized_linear(x, weight, scales)
    want = reference.quantized_linear(x.float(), weight, scales)
    assert got.dtype is dtype
    tolerance = TOLERANCE[dtype] * depth**0.5
    torch.testing.assert_close(got.float(), want, rtol=TOLERANCE[dtype], atol=tolerance)


def test_a_sum_cut_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantized_linear, "num_multiprocessors", lambda _: 8)
    x = torch.randn(3, 1500)
    weight, scales = ops.quantize_weight(torch.randn(70, 1500), INT8)
    got = ops.quantized_linear(x, weight, scales)
    want = reference.quantized_linear(x.double().float(), weight, scales)
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-3)


def test_a_quantised_weight_is_near_its_original() -> None:
    weight = torch.randn(5, 100)
    weight[3] = 0
    for kind, step in ((INT8, 0.501 / 127), (FP8, 0.0626)):
        values, scales = ops.quantize_weight(weight, kind)
        error = (values.float() * scales[:, None] - weight).abs()
        assert (error <= step * weight.abs().amax(1, keepdim=True)).all()
    with pytest.raises(ValueError, match="dtype: must be torch"):
        ops.quantize_weight(weight, torch.int16)
    with pytest.raises(ValueError, match="weight: must be int8 or float8_e4m3fn"):
        ops.quantized_linear(weight, weight, torch.ones(5))
