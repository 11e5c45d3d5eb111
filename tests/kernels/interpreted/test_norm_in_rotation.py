"""Queries and keys normed inside the rotation's launch are what launches of their own make."""

import pytest
import torch

from epidote_kernels import ops

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16


@pytest.mark.parametrize("dtype", [FP32, FP16, BF16])
@pytest.mark.parametrize(("tokens", "dim"), [(1, 16), (7, 24), (33, 128)])
def test_one_launch_files_what_five_did(tokens: int, dim: int, dtype: torch.dtype) -> None:
    heads, kv_heads = 5, 2
    qkv = (torch.randn(tokens, heads + 2 * kv_heads, dim) * 3).to(dtype)
    q_norm, k_norm = (torch.rand(2, dim) + 0.5).to(dtype).unbind()
    angles = torch.rand(tokens, dim // 2) * 6
    slots = torch.randperm(48)[:tokens]
    filed = []
    for inside in (True, False):
        q, k, v = qkv.clone().split((heads, kv_heads, kv_heads), 1)
        caches = torch.zeros(2, 3, 16, kv_heads, dim, dtype=dtype).unbind()
        rope = (angles.cos(), angles.sin(), *caches, slots)
        if inside:
            turned = ops.rope_kv_write(q, k, v, *rope, q_norm=q_norm, k_norm=k_norm, eps=1e-6)
        else:
            q.copy_(ops.rms_norm(q, q_norm, 1e-6))
            k.copy_(ops.rms_norm(k, k_norm, 1e-6))
            turned = ops.rope_kv_write(q, k, v, *rope)
        filed.append((turned, *caches))
    # Their squares are added in another order. In float32 that may move the last place of every
    # number of a row, which is most of what a single token has; rounded to 16 bits, of hardly any.
    tolerance = 4 * torch.finfo(dtype).eps
    for got, want in zip(*filed, strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=8 * tolerance)
        assert dtype is FP32 or (got != want).sum() <= 4 + 0.01 * got.numel()
    assert torch.equal(filed[0][2], filed[1][2])  # values are only moved
