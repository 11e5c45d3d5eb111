"""Packing KV blocks of all layers equals its twin, in Triton's interpreter."""

import pytest
import torch

from epidote_kernels import ops, reference

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
INT8, FP8 = torch.int8, torch.float8_e4m3fn


def representable(shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers of 8-bit floating point, 448 among those of every head of every block."""
    numbers = torch.tensor([0.0, 0.125, -0.75, 1.0, 2.25, -13.0, 30.0, 448.0])
    drawn = numbers[torch.randint(8, shape)]
    drawn[:, :, :, 0, :, 0] = 448.0
    return drawn


def pool_of(dtype: torch.dtype, *, tokens: int = 16, heads: int = 2, dim: int = 24) -> torch.Tensor:
    torch.manual_seed(1)
    return (torch.randn(2, 2, 6, tokens, heads, dim) * 5).to(dtype)


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_bits_come_back_as_they_were(count: int, dtype: torch.dtype) -> None:
    pool = pool_of(dtype)
    here, there = torch.randperm(6)[:count], torch.randperm(6)[:count].int()
    packed = ops.pack_blocks(pool, here)
    assert packed.scales is None
    assert packed.values.equal(pool[:, :, here])
    want, got = pool_of(dtype) + 1, pool_of(dtype) + 1
    reference.unpack_blocks(packed, want, there)
    ops.unpack_blocks(packed, got, there)
    assert got.equal(want)


@pytest.mark.parametrize("quantized", [INT8, FP8])
@pytest.mark.parametrize(("tokens", "heads", "dim"), [(16, 2, 24), (1, 1, 1), (5, 3, 8)])
def test_quantised_blocks_equal_the_twins(
    tokens: int, heads: int, dim: int, quantized: torch.dtype
) -> None:
    pool = pool_of(FP32, tokens=tokens, heads=heads, dim=dim)
    if quantized is FP8:  # the interpreter can't round to it: numbers that need no rounding
        pool = representable(tuple(pool.shape))
    pool[1, 0, 2, :, 0] = 0  # a head of nothing but zeros
    ids = torch.tensor([4, 2, 0])
    want = reference.pack_blocks(pool, ids, quantized)
    got = ops.pack_blocks(pool, ids, quantized=quantized)
    assert got.values.dtype is quantized
    assert got.scales is not None
    torch.testing.assert_close(got.scales, want.scales, rtol=1e-6, atol=0)
    assert got.values.float().equal(want.values.float())

    back, twins = torch.full_like(pool, torch.nan), torch.full_like(pool, torch.nan)
    ops.unpack_blocks(got, back, ids)
    reference.unpack_blocks(got, twins, ids)
    assert back[:, :, ids].equal(twins[:, :, ids])
    assert back[:, :, [1, 3, 5]].isnan().all()
    error = (back[:, :, ids] - pool[:, :, ids]).abs().amax((3, 5))
    assert (error <= got.scales * (0.51 if quantized is INT8 else 0)).all()


def test_half_precision_is_quantised_too() -> None:
    for dtype in (FP16, BF16):
        pool = pool_of(dtype)
        packed = ops.pack_blocks(pool, torch.tensor([1]), quantized=INT8)
        want = reference.pack_blocks(pool, torch.tensor([1]), INT8)
        assert (packed.values.int() - want.values.int()).abs().max() <= 1


def test_a_pool_inside_a_larger_one() -> None:
    """Layers of one part, as a pool shared by two models would lie."""
    pool = pool_of(FP32)
    packed = ops.pack_blocks(pool[1:], torch.tensor([5, 1]))
    assert packed.values.equal(pool[1:, :, [5, 1]])
    with pytest.raises(ValueError, match="pool: every layer's blocks must be contiguous"):
        ops.pack_blocks(pool[:, :1], torch.tensor([0]))
    with pytest.raises(ValueError, match="quantized: must be torch"):
        ops.pack_blocks(pool, torch.tensor([0]), quantized=torch.int16)
