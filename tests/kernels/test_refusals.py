"""Wrong tensors are refused by name, before anything is computed; settings too."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from epidote_kernels import arguments, ops
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.ops import dispatch

Call = tuple[Callable[..., Any], dict[str, Any]]


def decode_call() -> Call:
    batch = paged_batch([5, 20], num_kv_heads=2, dim=8)
    return ops.paged_decode_attention, {**vars(batch), "q": torch.randn(2, 4, 8), "scale": 1.0}


def prefill_call() -> Call:
    batch = paged_batch([5, 20], num_kv_heads=2, dim=8)
    more = {"q": torch.randn(7, 4, 8), "cu_q_lens": cumulative([3, 4])}
    return ops.paged_prefill_attention, {**vars(batch), **more, "scale": 1.0, "max_q_len": 4}


def vision_call() -> Call:
    q, k, v = torch.randn(3, 6, 2, 8).unbind()
    more = {"cu_seqlens": cumulative([2, 4]), "scale": 1.0, "max_seqlen": 4}
    return ops.vision_attention, {"q": q, "k": k, "v": v, **more}


def rope_call() -> Call:
    caches = {"k_cache": torch.zeros(2, 4, 1, 8), "v_cache": torch.zeros(2, 4, 1, 8)}
    return ops.rope_kv_write, {
        "q": torch.randn(3, 2, 8),
        "k": torch.randn(3, 1, 8),
        "v": torch.randn(3, 1, 8),
        "cos": torch.randn(3, 4),
        "sin": torch.randn(3, 4),
        **caches,
        "slots": torch.tensor([0, 5, -1]),
    }


def norm_call() -> Call:
    return ops.rms_norm, {"x": torch.randn(3, 8), "weight": torch.ones(8), "eps": 1e-6}


def add_norm_call() -> Call:
    x = torch.randn(3, 8)
    return ops.add_rms_norm, {"x": x, "residual": x, "weight": torch.ones(8), "eps": 1e-6}


def copy_call() -> Call:
    cache, ids = torch.zeros(3, 4, 1, 8), torch.tensor([0])
    return ops.copy_blocks, {
        "src_cache": cache,
        "dst_cache": cache.clone(),
        "src_ids": ids,
        "dst_ids": ids,
    }


def scatter_call() -> Call:
    cache = torch.zeros(3, 4, 1, 8)
    return ops.scatter_blocks, {
        "cache": cache,
        "ids": torch.tensor([0]),
        "packed": cache[:1].clone(),
    }


def mrope_call() -> Call:
    return ops.mrope_cos_sin, {
        "table": torch.zeros(9, 16),
        "positions": torch.zeros(3, 2, dtype=torch.int64),
        "sections": (2, 3, 3),
        "interleaved": True,
    }


CASES: list[tuple[Callable[[], Call], str, Any, str]] = [
    (decode_call, "q", torch.zeros(2, 8), r"q, k_cache: .*got \[2, 8\]"),
    (decode_call, "q", torch.zeros(2, 3, 8), "q: heads must be a multiple of 2, got 3"),
    (decode_call, "q", torch.zeros(2, 4, 16), r"k_cache: must have shape .*16\], got .*8\]"),
    (decode_call, "q", torch.zeros(2, 4, 8).double(), "q: .*got torch.float64"),
    (decode_call, "q", torch.zeros(2, 4, 8).half(), "q, k_cache, v_cache: must share"),
    (decode_call, "seq_lens", torch.ones(3).int(), r"seq_lens: must have shape \[2\], got \[3\]"),
    (decode_call, "seq_lens", torch.ones(2).long(), "seq_lens: must be torch.int32, got .*int64"),
    (decode_call, "block_tables", torch.zeros(3, 2).int(), r"block_tables: .*\[2, MB\], got \[3"),
    (decode_call, "block_tables", torch.zeros(2, 2).long(), "block_tables: must be torch.int32"),
    (decode_call, "v_cache", torch.zeros(1, 16, 2, 8), r"v_cache: must have shape .*got \[1, 16"),
    (prefill_call, "cu_q_lens", cumulative([3]), r"cu_q_lens: must have shape \[3\], got \[2\]"),
    (prefill_call, "cu_q_lens", cumulative([3, 9]), "cu_q_lens: .*7 rows, got 12"),
    (prefill_call, "cu_q_lens", cumulative([6, 1]), "cu_q_lens: sequence 0 .* chunk of 6"),
    (prefill_call, "max_q_len", 2, "max_q_len is 2, got a chunk of 3"),
    (prefill_call, "max_q_len", -1, "max_q_len: must be >= 0, got -1"),
    (prefill_call, "seq_lens", torch.ones(2), "seq_lens: must be torch.int32, got torch.float32"),
    (vision_call, "k", torch.zeros(6, 1, 8), r"k: must have shape \[6, 2, 8\], got \[6, 1, 8\]"),
    (vision_call, "v", torch.zeros(6, 2, 8).half(), "q, k, v: must share one dtype"),
    (vision_call, "cu_seqlens", cumulative([2, 5]), "cu_seqlens: must rise to at most 6"),
    (vision_call, "cu_seqlens", torch.tensor([0, 4, 2]).int(), "cu_seqlens: must rise"),
    (vision_call, "cu_seqlens", torch.tensor([0, 6]), "cu_seqlens: must be torch.int32"),
    (vision_call, "max_seqlen", 3, "max_seqlen: must be >= 4, got 3"),
    (rope_call, "k", torch.zeros(2, 1, 8), r"k: must have shape \[3, K, 8\], got \[2, 1, 8\]"),
    (rope_call, "v", torch.zeros(3, 2, 8), r"v: must have shape \[3, 1, 8\], got \[3, 2, 8\]"),
    (rope_call, "cos", torch.zeros(3, 8), r"cos: must have shape \[3, 4\], got \[3, 8\]"),
    (rope_call, "sin", torch.zeros(2, 4), r"sin: must have shape \[3, 4\], got \[2, 4\]"),
    (rope_call, "k_cache", torch.zeros(2, 4, 2, 8), r"k_cache: .*\[NB, BS, 1, 8\]"),
    (rope_call, "v_cache", torch.zeros(3, 4, 1, 8), r"v_cache: .*\[2, 4, 1, 8\]"),
    (rope_call, "slots", torch.zeros(3).int(), "slots: must be torch.int64, got torch.int32"),
    (rope_call, "slots", torch.zeros(4).long(), r"slots: must have shape \[3\], got \[4\]"),
    (norm_call, "weight", torch.ones(7), r"x, weight: .*got \[3, 8\] and \[7\]"),
    (norm_call, "weight", torch.ones(8).half(), "x, weight: must share one dtype"),
    (norm_call, "x", torch.ones(3, 8).int(), "x: .*got torch.int32"),
    (add_norm_call, "residual", torch.ones(2, 8), r"residual: .*\[3, 8\], got \[2, 8\]"),
    (add_norm_call, "weight", torch.ones(9), r"x, weight: .*got \[3, 8\] and \[9\]"),
    (copy_call, "dst_cache", torch.zeros(3, 4, 2, 8), "src_cache, dst_cache: .*one shape"),
    (copy_call, "dst_ids", torch.tensor([0, 1]), r"dst_ids: must have shape \[1\], got \[2\]"),
    (copy_call, "src_ids", torch.tensor([0.0]), "src_ids: .*got .*float32"),
    (scatter_call, "packed", torch.zeros(2, 4, 1, 8), r"packed: .*\[1, 4, 1, 8\], got \[2"),
    (mrope_call, "sections", (2, 3, 4), r"sections: .*sum to 8, got \(2, 3, 4\)"),
    (mrope_call, "positions", torch.zeros(2, 2).long(), r"positions: .*got \[9, 16\] and \[2, 2"),
]


@pytest.mark.parametrize(
    ("call", "name", "value", "words"),
    CASES,
    ids=[f"{call.__name__[:-5]}-{name}-{index}" for index, (call, name, *_) in enumerate(CASES)],
)
def test_wrong_argument_is_named(
    call: Callable[[], Call], name: str, value: Any, words: str
) -> None:
    op, keywords = call()
    op(**keywords)  # as it stands it is fine
    with pytest.raises(ValueError, match=words):
        op(**{**keywords, name: value})


@pytest.mark.parametrize("gate_up", [torch.zeros(2, 7), torch.tensor(1.0)])
def test_odd_gate_and_up_are_refused(gate_up: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"gate_up: must have shape \[..., 2·I\]"):
        ops.silu_mul(gate_up)


def test_odd_head_dimension_is_refused() -> None:
    op, keywords = rope_call()
    odd = {name: keywords[name][..., :7] for name in ("q", "k", "v", "k_cache", "v_cache")}
    narrow = {name: keywords[name][:, :3] for name in ("cos", "sin")}
    with pytest.raises(ValueError, match="head_dim must be even, got 7"):
        op(**{**keywords, **odd, **narrow})


def test_layout_checks_of_the_kernels_name_strides() -> None:
    with pytest.raises(ValueError, match=r"q: last dimension must have stride 1, got \(1, 4\)"):
        arguments.rows_are_whole("q", torch.zeros(8, 4).t().t().t())
    with pytest.raises(ValueError, match="weight: must be contiguous, got shape"):
        arguments.is_contiguous("weight", torch.zeros(8, 2)[:, 0])
    with pytest.raises(ValueError, match="k_cache: every block must be contiguous"):
        arguments.blocks_are_whole("k_cache", torch.zeros(2, 4, 3, 8).transpose(1, 2))
    arguments.blocks_are_whole("k_cache", torch.zeros(4, 2, 4, 3, 8)[:, 1])
    for dim in (0, 12, 264):
        with pytest.raises(ValueError, match=f"head_dim: .*got {dim}"):
            arguments.head_dim_is_supported(dim)


@pytest.mark.parametrize(
    ("value", "has_triton", "choice"),
    [
        (None, True, "auto"),
        (None, False, "torch"),
        ("auto", True, "auto"),
        ("torch", True, "torch"),
        ("triton", True, "triton"),
    ],
)
def test_setting_decides_who_computes(value: str | None, has_triton: bool, choice: str) -> None:
    environment = {} if value is None else {"EPIDOTE_KERNELS": value}
    assert dispatch.read_choice(environment, has_triton=has_triton) == choice


def test_setting_that_cannot_be_met_is_refused() -> None:
    with pytest.raises(ValueError, match="must be auto, torch or triton, got 'cuda'"):
        dispatch.read_choice({"EPIDOTE_KERNELS": "cuda"}, has_triton=True)
    with pytest.raises(ValueError, match="is triton, but no triton is installed"):
        dispatch.read_choice({"EPIDOTE_KERNELS": "triton"}, has_triton=False)


def test_triton_on_a_cpu_without_the_interpreter_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "_CHOICE", "triton")
    monkeypatch.setattr(dispatch, "_INTERPRETED", False)
    with pytest.raises(ValueError, match="tensors on cpu only under TRITON_INTERPRET=1"):
        ops.silu_mul(torch.ones(1, 4))


def test_ops_work_without_triton_and_never_load_it_on_a_cpu() -> None:
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "import torch, importlib.util as u\n"
        "find = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else find(name, *a)\n"
        "from epidote_kernels import ops\n"
        "print(ops.silu_mul(torch.ones(1, 4)).shape)\n"
    )
    kept = {k: v for k, v in os.environ.items() if k not in ("TRITON_INTERPRET", "EPIDOTE_KERNELS")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=kept,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert "torch.Size([1, 2])" in done.stdout
