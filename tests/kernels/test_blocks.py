"""Whole blocks move where their numbers say, and nothing else changes."""

import pytest
import torch

from epidote_kernels import ops


@pytest.mark.parametrize("ids_dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_gather_then_scatter_restores_a_cache(
    count: int, dtype: torch.dtype, ids_dtype: torch.dtype
) -> None:
    cache = (torch.randn(7, 4, 2, 8) * 50).to(dtype)
    ids = torch.randperm(7)[:count].to(ids_dtype)
    packed = ops.gather_blocks(cache, ids)
    assert packed.is_contiguous()
    assert torch.equal(packed, cache[ids.long()])
    emptied = cache.clone()
    emptied[ids.long()] = 0
    ops.scatter_blocks(emptied, ids, packed)
    assert torch.equal(emptied, cache)


def test_copy_between_caches() -> None:
    src, dst = torch.randn(5, 4, 2, 8), torch.randn(3, 4, 2, 8)
    want = dst.clone()
    want[2], want[0] = src[1], src[4]
    ops.copy_blocks(src, dst, torch.tensor([1, 4]), torch.tensor([2, 0]))
    assert torch.equal(dst, want)


def test_copy_within_one_layer_of_a_larger_cache() -> None:
    caches = torch.randn(2, 5, 4, 2, 8)
    want = caches.clone()
    want[1, 3] = caches[1, 0]
    ops.copy_blocks(caches[1], caches[1], torch.tensor([0]), torch.tensor([3]))
    assert torch.equal(caches, want)
