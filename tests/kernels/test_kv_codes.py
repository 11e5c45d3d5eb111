"""One-byte codes: what they keep of a number, and what tensors around them are refused."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from epidote_kernels import arguments, ops
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.reference.kv_codes import decoded, encoded, head_scales

INT8, FP8 = torch.int8, torch.float8_e4m3fn


@given(
    numbers=st.lists(st.floats(-1e4, 1e4, width=32), min_size=8, max_size=8),
    code=st.sampled_from([INT8, FP8]),
)
def test_a_number_within_the_scale_comes_back_within_half_a_step(
    numbers: list[float], code: torch.dtype
) -> None:
    x = torch.tensor(numbers).view(1, 2, 4)
    scale = head_scales(x, code)
    back = decoded(encoded(x, scale, code), scale, torch.float32)
    if code is INT8:
        step = scale.view(1, 2, 1).expand_as(x)
    else:  # three bits after the leading one; below 2 ** -6 of the scale, steps of 2 ** -9
        step = torch.maximum(x.abs() / 8, scale.view(1, 2, 1) * 2.0**-9)
    assert ((back - x).abs() <= step * 0.501 + 1e-30).all()


def test_every_head_has_a_scale_of_its_own_and_zeros_have_one() -> None:
    x = torch.zeros(3, 16, 2, 8)
    x[1, 2, 1, 3] = -254.0
    assert head_scales(x, INT8).tolist() == [1.0, 2.0]
    assert head_scales(x[0, 0], INT8).tolist() == [1.0, 1.0]
    assert head_scales(torch.zeros(0, 2, 8), FP8).tolist() == [1.0, 1.0]


def test_a_number_past_the_scale_is_clamped() -> None:
    x = torch.tensor([[[1e9, -1e9]]])
    one = torch.ones(1)
    assert encoded(x, one, INT8).tolist() == [[[127, -127]]]
    assert encoded(x, one, FP8).float().tolist() == [[[448.0, -448.0]]]


def decode(**changed: Any) -> dict[str, Any]:
    batch = paged_batch([5, 20], num_kv_heads=2, dim=8)
    one = torch.ones(2)
    call = {**vars(batch), "q": torch.randn(2, 4, 8), "scale": 1.0, "k_scale": one, "v_scale": one}
    call |= {name: (call[name] * 9).to(INT8) for name in ("k_cache", "v_cache")}
    return {**call, **changed}


DECODES: list[tuple[dict[str, Any], str]] = [
    ({"v_scale": None}, "k_scale, v_scale: must be given both or neither"),
    ({"k_scale": None, "v_scale": None}, "q, k_cache, v_cache: must share"),
    ({"k_scale": torch.ones(3)}, r"k_scale: must have shape \[2\], got \[3\]"),
    ({"v_scale": torch.ones(2).half()}, "v_scale: must be float32, got torch.float16"),
    ({"v_scale": torch.ones(4)[::2]}, "v_scale: must be contiguous"),
    ({"k_cache": torch.zeros(6, 16, 2, 8)}, "k_cache, v_cache: must share"),
    ({"seq_lens": torch.ones(2, 3).int()}, r"seq_lens: must have shape \[2, 2\], got \[2, 3\]"),
    ({"block_tables": torch.zeros(2, 3, 4).int()}, r"k_cache: must have shape .* 3, 8\]"),
    ({"block_tables": torch.zeros(1, 2, 4).int()}, r"block_tables: must have shape \[2, 2, MB\]"),
]


@pytest.mark.parametrize(("changed", "words"), DECODES, ids=[w[:30] for _, w in DECODES])
def test_a_cache_or_scale_that_does_not_fit_is_named(changed: dict[str, Any], words: str) -> None:
    ops.paged_decode_attention(**decode())
    call = decode()
    if "k_cache" in changed:
        changed = {"k_cache": torch.zeros_like(call["k_cache"], dtype=torch.float32)}
    with pytest.raises(ValueError, match=words):
        ops.paged_decode_attention(**{**call, **changed})


def test_floats_with_scales_are_refused() -> None:
    call = decode()
    wide = {name: call[name].float() for name in ("k_cache", "v_cache")}
    with pytest.raises(ValueError, match="k_cache: with scales, must be int8 or float8_e4m3fn"):
        ops.paged_decode_attention(**{**call, **wide})


def test_blocks_of_one_head_without_tables_per_head_are_a_model_of_one() -> None:
    call = decode()
    narrow = {name: call[name][:, :, :1].contiguous() for name in ("k_cache", "v_cache")}
    with pytest.raises(ValueError, match=r"k_scale: must have shape \[1\], got \[2\]"):
        ops.paged_decode_attention(**{**call, **narrow})


def test_a_span_past_its_sequence_is_refused() -> None:
    batch = paged_batch([5], num_kv_heads=1, dim=8)
    call = {**vars(batch), "q": torch.randn(3, 1, 8), "cu_q_lens": cumulative([3]), "scale": 1.0}
    ends = torch.tensor([0, 6, 0], dtype=torch.int32)
    with pytest.raises(ValueError, match="span_ends: sequence 0 has 5 tokens, got a span to 6"):
        ops.paged_prefill_attention(**call, max_q_len=3, span_ends=ends)
    with pytest.raises(ValueError, match=r"span_ends: must be torch\.int32"):
        ops.paged_prefill_attention(**call, max_q_len=3, span_ends=ends.long())


def test_one_norm_of_two_is_refused() -> None:
    q, k, v = torch.randn(3, 2, 1, 8).unbind()
    k_cache, v_cache = torch.zeros(2, 1, 16, 1, 8).unbind()
    call: dict[str, Any] = {"q": q, "k": k, "v": v, "k_cache": k_cache, "v_cache": v_cache}
    call |= {"cos": torch.ones(2, 4), "sin": torch.zeros(2, 4), "slots": torch.arange(2)}
    ops.rope_kv_write(**call)
    with pytest.raises(ValueError, match="q_norm, k_norm: must be given both or neither"):
        ops.rope_kv_write(**call, q_norm=torch.ones(8))
    with pytest.raises(ValueError, match=r"k_norm: must have shape \[8\], got \[4\]"):
        ops.rope_kv_write(**call, q_norm=torch.ones(8), k_norm=torch.ones(4))
    with pytest.raises(ValueError, match=r"slots: must have shape \[2, 1\], got \[2, 3\]"):
        ops.rope_kv_write(**{**call, "slots": torch.zeros(2, 3).long()})


def test_e4m3_without_hardware_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cache = torch.zeros(1, 16, 1, 8, dtype=FP8)
    arguments.codes_are_supported("k_cache", cache)  # a CPU converts anything
    monkeypatch.setattr(arguments, "_knows_e4m3", lambda device: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    with pytest.raises(ValueError, match=r"k_cache: float8_e4m3fn needs .* got cpu \(8, 0\)"):
        arguments.codes_are_supported("k_cache", cache)


def experts(**changed: Any) -> dict[str, Any]:
    weights, chosen = ops.moe_route(torch.randn(3, 4), 2)
    call = {"x": torch.randn(3, 8), "gate_up": torch.randn(4, 12, 8), "down": torch.randn(4, 8, 6)}
    return {**call, "weights": weights, "experts": chosen, **changed}


EXPERTS: list[tuple[dict[str, Any], str]] = [
    ({"x": torch.zeros(8)}, r"x, down, experts: .*got \[8\]"),
    ({"x": torch.zeros(3, 8).double()}, "x: .*got torch.float64"),
    ({"gate_up": torch.zeros(4, 6, 8)}, r"gate_up: must have shape \[4, 12, 8\], got \[4, 6, 8\]"),
    ({"down": torch.zeros(4, 6, 6)}, r"down: must have shape \[4, 8, 6\], got \[4, 6, 6\]"),
    ({"down": torch.zeros(4, 8, 6).half()}, "x, gate_up, down: must share"),
    ({"weights": torch.zeros(3, 1)}, r"weights: must have shape \[3, 2\], got \[3, 1\]"),
    ({"weights": torch.zeros(3, 2).half()}, "weights: must be torch.float32, got torch.float16"),
    ({"experts": torch.zeros(3, 2).long()}, "experts: must be torch.int32, got torch.int64"),
    ({"experts": torch.zeros(2, 2).int()}, r"experts: must have shape \[3, k\], got \[2, 2\]"),
]


def coded_experts(**changed: Any) -> dict[str, Any]:
    call = {
        "gate_up": torch.zeros(4, 12, 8, dtype=torch.int8),
        "down": torch.zeros(4, 8, 6, dtype=torch.int8),
        "scales": (torch.ones(4, 12), torch.ones(4, 8)),
    }
    return experts(**{**call, **changed})


ONES = torch.ones(4, 12)
CODED: list[tuple[dict[str, Any], str]] = [
    ({"scales": None}, "x, gate_up, down: must share one dtype"),
    ({"gate_up": torch.zeros(4, 12, 8)}, "gate_up, down: with scales both must be int8 or both"),
    (
        {"down": torch.zeros(4, 8, 6).to(torch.float8_e4m3fn)},
        "both must be int8 or both float8_e4m3fn, got torch.int8 and torch.float8_e4m3fn",
    ),
    ({"scales": (ONES, torch.ones(4, 6))}, r"scales of down: must have shape \[4, 8\], got"),
    ({"scales": (ONES[0], torch.ones(4, 8))}, r"scales of gate_up: must have shape \[4, 12\]"),
    ({"scales": (ONES.half(), torch.ones(4, 8))}, "scales of gate_up: must be torch.float32"),
]


@pytest.mark.parametrize(("changed", "words"), CODED, ids=[w[:30] for _, w in CODED])
def test_wrong_codes_of_experts_are_named(changed: dict[str, Any], words: str) -> None:
    ops.fused_moe(**coded_experts())
    with pytest.raises(ValueError, match=words):
        ops.fused_moe(**coded_experts(**changed))


def test_a_part_of_a_rows_numbers_takes_the_whole_rows_scale() -> None:
    weight = torch.randn(5, 12)
    codes, scales = ops.quantize_weight(weight, torch.int8)
    most = weight.abs().amax(1)
    parts = [ops.quantize_weight(part, torch.int8, most) for part in weight.split(6, 1)]
    assert torch.equal(torch.cat([values for values, _ in parts], 1), codes)
    assert all(torch.equal(found, scales) for _, found in parts)
    with pytest.raises(ValueError, match=r"most: must have shape \[5\], got \[12\]"):
        ops.quantize_weight(weight, torch.int8, weight.abs().amax(0))


@pytest.mark.parametrize(("changed", "words"), EXPERTS, ids=[w[:30] for _, w in EXPERTS])
def test_wrong_experts_are_named(changed: dict[str, Any], words: str) -> None:
    ops.fused_moe(**experts())
    with pytest.raises(ValueError, match=words):
        ops.fused_moe(**experts(**changed))


@pytest.mark.parametrize("top_k", [0, 5])
def test_more_experts_than_there_are_cannot_be_chosen(top_k: int) -> None:
    with pytest.raises(ValueError, match=f"top_k: must be from 1 to 4, got {top_k}"):
        ops.moe_route(torch.zeros(2, 4), top_k)


def test_experts_of_another_device_add_nothing() -> None:
    call = experts(experts=torch.full((3, 2), -1, dtype=torch.int32))
    assert not ops.fused_moe(**call).any()


def scores(**changed: Any) -> dict[str, Any]:
    batch = paged_batch([5, 20], num_kv_heads=2, dim=8)
    call = {**vars(batch), "q": torch.randn(7, 4, 8), "cu_q_lens": cumulative([3, 4])}
    del call["v_cache"]
    return {**call, "scale": 1.0, "max_q_len": 4, "max_seq_len": 20, **changed}


SCORES: list[tuple[dict[str, Any], str]] = [
    ({"q": torch.zeros(7, 3, 8)}, "q: heads must be a multiple of 2, got 3"),
    ({"cu_q_lens": cumulative([7])}, r"cu_q_lens: must have shape \[3\], got \[2\]"),
    ({"max_seq_len": -1}, "max_q_len, max_seq_len: must be >= 0, got 4 and -1"),
    ({"max_seq_len": 19}, "cu_q_lens: sequence 1 has 20 tokens"),
    ({"max_q_len": 3}, "cu_q_lens: sequence 1 .*got a window of 4"),
    ({"into": torch.zeros(2, 2, 19)}, r"into: must have shape \[2, 2, 20\], got \[2, 2, 19\]"),
    ({"into": torch.zeros(2, 2, 20).half()}, "into: must be torch.float32"),
    ({"into": torch.zeros(2, 20, 2).transpose(1, 2)}, "into: must be contiguous"),
]


@pytest.mark.parametrize(("changed", "words"), SCORES, ids=[w[:30] for _, w in SCORES])
def test_wrong_windows_are_named(changed: dict[str, Any], words: str) -> None:
    ops.attention_column_sums(**scores())
    with pytest.raises(ValueError, match=words):
        ops.attention_column_sums(**scores(**changed))


@pytest.mark.parametrize("width", [0, 4, 65])
def test_a_pool_without_a_middle_is_refused(width: int) -> None:
    lens = torch.ones(2, dtype=torch.int32)
    with pytest.raises(ValueError, match=f"width: must be odd and from 1 to 63, got {width}"):
        ops.pool_scores(torch.zeros(2, 1, 4), lens, width)
