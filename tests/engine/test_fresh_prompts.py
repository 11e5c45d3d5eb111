import torch
from hypothesis import given
from hypothesis import strategies as st

from epidote_engine.layers.fresh_prompts import FreshPrompts


@given(lengths=st.lists(st.integers(1, 40), min_size=2, max_size=6), seed=st.integers(0, 2**31))
def test_prompts_side_by_side_get_what_each_gets_alone(lengths: list[int], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    total, heads, kv_heads, dim = sum(lengths), 6, 2, 8
    layer = torch.full((2, 20, 16, kv_heads, dim), torch.nan)
    slots = torch.randperm(20 * 16, generator=generator)[:total]
    keys, values = torch.randn(2, total, kv_heads, dim, generator=generator)
    layer.flatten(1, 2)[0, slots], layer.flatten(1, 2)[1, slots] = keys, values
    q = torch.randn(total, heads, dim, generator=generator)

    found = FreshPrompts(lengths, slots).attend(q, layer, dim**-0.5)

    for part, k, v, mine in zip(
        q.split(lengths), keys.split(lengths), values.split(lengths), found.split(lengths),
        strict=True,
    ):  # fmt: skip
        alone = torch.nn.functional.scaled_dot_product_attention(
            part.transpose(0, 1), k.transpose(0, 1), v.transpose(0, 1),
            is_causal=True, scale=dim**-0.5, enable_gqa=True,
        )  # fmt: skip
        torch.testing.assert_close(mine, alone.transpose(0, 1))


def test_prompts_of_very_different_lengths_go_one_after_the_other() -> None:
    slots = torch.arange(1000)
    assert FreshPrompts.of([10, 400], slots) is None
    assert FreshPrompts.of([700, 700], slots) is None
    assert FreshPrompts.of([33], slots) is None
    assert FreshPrompts.of([33, 30, 21], slots) is not None
