"""This file is about kernels that users would pick instead, on the same inputs as ours: torch's
SDPA with each backend, FlashInfer in both settings, two compositions of `torch._grouped_mm`.

All are compared with the torch twin; the best of those that agree with it is the peer that counts.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from correctness import TOLERANCE, poisoned, relative_errors, wrong
from device_limits import seconds
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from epidote_kernels import ops, reference
from epidote_kernels.fakes import cumulative, paged_batch
from epidote_kernels.reference.grouped_mm_moe import grouped_mm_moe

Run = Callable[[], Any]
BACKENDS = {
    "sdpa flash": SDPBackend.FLASH_ATTENTION,
    "sdpa efficient": SDPBackend.EFFICIENT_ATTENTION,
    "sdpa cudnn": SDPBackend.CUDNN_ATTENTION,
    "sdpa math": SDPBackend.MATH,
}
PEER_TOLERANCE = 3e-2  # of the whole; peers round in other places, and some weights to bf16


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """`twin` says what is right. A peer is made outside the clock, then run."""

    case: str
    ours: Run
    twin: Run
    peers: dict[str, Callable[[], Run]]


def compared(comparison: Comparison, device: str, dtype: torch.dtype, *, toy: bool) -> dict:
    """Times of all that are right; the ratio of the best peer's to ours, if ours is."""
    wanted = comparison.twin()
    line: dict[str, Any] = {"case": comparison.case, "peers": {}}
    with poisoned():
        words = wrong(comparison.ours(), wanted, TOLERANCE[dtype])
    if words:
        line["wrong"] = words
    else:
        line["ours_s"] = seconds(comparison.ours, device, toy=toy)
    for peer, make in comparison.peers.items():
        try:
            run = make()
            error, _ = relative_errors(run(), wanted)
            if error > PEER_TOLERANCE:
                line["peers"][peer] = {"differs": error}
                continue
            line["peers"][peer] = {"time_s": seconds(run, device, toy=toy)}
        except Exception as failed:  # whatever a peer can't do must not end the bench
            line["peers"][peer] = {"refused": f"{type(failed).__name__}: {failed}"[:200]}
    times = [p["time_s"] for p in line["peers"].values() if "time_s" in p]
    if times and "ours_s" in line:
        line["best_peer_over_ours"] = min(times) / line["ours_s"]
    return line


def prefill(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[Comparison]:
    """Causal attention of one long prompt, GQA."""
    heads, kv_heads, dim = (4, 2, 16) if toy else (32, 8, 128)
    for length in (17,) if toy else (8192, 2048):
        batch = paged_batch(
            [length], num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device, elsewhere=0.0
        )
        q = torch.randn(length, heads, dim, device=device).to(dtype)
        bounds = cumulative([length], device)
        blocks = batch.block_tables[0, : -(-length // 16)].long()
        k, v = (
            cache[blocks].flatten(0, 1)[:length].transpose(0, 1)[None]
            for cache in (batch.k_cache, batch.v_cache)
        )
        query = q.transpose(0, 1)[None]
        given = (q, batch.k_cache, batch.v_cache, batch.block_tables, bounds, batch.seq_lens)
        settings = {"scale": dim**-0.5, "max_q_len": length}
        yield Comparison(
            case=f"prefill L={length}",
            ours=partial(ops.paged_prefill_attention, *given, **settings),
            twin=partial(reference.paged_prefill_attention, *given, **settings),
            peers={
                name: partial(partial, _sdpa, query, k, v, backend, causal=True)
                for name, backend in BACKENDS.items()
            },
        )


def vision(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[Comparison]:
    """Attention inside pictures of one size, which SDPA takes as a batch."""
    count, length, heads, dim = (2, 9, 2, 16) if toy else (8, 4096, 16, 72)
    q, k, v = torch.randn(count * length, 3, heads, dim, device=device).to(dtype).unbind(1)
    packed = [x.view(count, length, heads, dim).transpose(1, 2) for x in (q, k, v)]
    given = (q, k, v, cumulative([length] * count, device))
    settings = {"scale": dim**-0.5, "max_seqlen": length}
    yield Comparison(
        case=f"vision {count}x{length} D={dim}",
        ours=partial(ops.vision_attention, *given, **settings),
        twin=partial(reference.vision_attention, *given, **settings),
        peers={
            name: partial(partial, _sdpa, *packed, backend, causal=False)
            for name, backend in BACKENDS.items()
        },
    )


def _sdpa(q: Tensor, k: Tensor, v: Tensor, backend: SDPBackend, *, causal: bool) -> Tensor:
    """[T, H, D], as ours."""
    gqa = q.shape[1] != k.shape[1]
    with sdpa_kernel(backend):
        out = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, is_causal=causal, enable_gqa=gqa
        )
    return out.transpose(1, 2).flatten(0, 1)


def decode(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[Comparison]:
    """Paged decode attention beside FlashInfer's."""
    heads, kv_heads, dim = (4, 2, 16) if toy else (32, 8, 128)
    for num_seqs, length in ((2, 17),) if toy else ((64, 4096), (64, 32768), (1, 32768)):
        batch = paged_batch(
            [length] * num_seqs, num_kv_heads=kv_heads, dim=dim, dtype=dtype, device=device,
            elsewhere=0.0,
        )  # fmt: skip
        q = torch.randn(num_seqs, heads, dim, device=device).to(dtype)
        given = (q, *vars(batch).values())
        yield Comparison(
            case=f"decode S={num_seqs} L={length}",
            ours=partial(ops.paged_decode_attention, *given, scale=dim**-0.5),
            twin=partial(reference.paged_decode_attention, *given, scale=dim**-0.5),
            peers={
                name: partial(flashinfer_decode, q, batch, length, tensor_cores=tensor_cores)
                for name, tensor_cores in (
                    ("flashinfer", False),
                    ("flashinfer tensor cores", True),
                )
            },
        )


def flashinfer_decode(q: Tensor, batch: Any, length: int, *, tensor_cores: bool) -> Run:
    """FlashInfer's batched decode over the same paged cache, planned outside the clock.

    tensor_cores  its own advice from a group of some four query heads a KV head on: both are tried
    """
    import flashinfer

    num_seqs, heads, dim = q.shape
    per_seq, device = -(-length // 16), q.device
    workspace = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        workspace, "NHD", use_tensor_cores=tensor_cores
    )
    starts = torch.arange(num_seqs + 1, dtype=torch.int32, device=device) * per_seq
    pages = batch.block_tables[:, :per_seq].reshape(-1).contiguous()
    last = torch.full((num_seqs,), length - (per_seq - 1) * 16, dtype=torch.int32, device=device)
    wrapper.plan(
        starts, pages, last, heads, batch.k_cache.shape[2], dim, 16,
        q_data_type=q.dtype, kv_data_type=q.dtype,
    )  # fmt: skip
    return lambda: wrapper.run(q, (batch.k_cache, batch.v_cache))


def moe(device: str, dtype: torch.dtype, *, toy: bool) -> Iterator[Comparison]:
    """Fused MoE beside compositions around `torch._grouped_mm`, balanced and skewed."""
    experts, top_k, hidden, inner = (4, 2, 32, 16) if toy else (128, 8, 2048, 768)
    gate_up = torch.randn(experts, 2 * inner, hidden, device=device).to(dtype) * hidden**-0.5
    down = torch.randn(experts, hidden, inner, device=device).to(dtype) * inner**-0.5
    for tokens in (1, 5) if toy else (1, 8, 64, 512, 4096):
        x = torch.randn(tokens, hidden, device=device).to(dtype)
        for skewed in (False, True):
            logits = torch.randn(tokens, experts, device=device)
            if skewed:
                logits -= torch.arange(experts, device=device) * (8.0 / experts)
            given = (x, gate_up, down, *ops.moe_route(logits.to(dtype), top_k))
            tight = {"activation": ops.silu_mul, "sums_by_product": True}
            yield Comparison(
                case=f"moe T={tokens}" + " skewed" * skewed,
                ours=partial(ops.fused_moe, *given),
                twin=partial(reference.fused_moe, *given),
                peers={
                    "torch._grouped_mm": partial(partial, grouped_mm_moe, *given),
                    "torch._grouped_mm, fused ends": partial(
                        partial, grouped_mm_moe, *given, **tight
                    ),
                },
            )


PARTS = {"decode": decode, "prefill": prefill, "vision": vision, "moe": moe}
