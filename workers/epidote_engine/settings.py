"""This file is about what an engine is told when it starts."""

import re
from dataclasses import dataclass
from enum import StrEnum

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role

DTYPES = ("auto", "float32", "bfloat16", "float16")
CODES = ("int8", "fp8")  # what numbers of one byte may be
DEVICE = re.compile(r"cpu|cuda(:\d+)?")


class WeightsPolicy(StrEnum):
    """What happens to weights that the new role does not need."""

    RESIDENT = "resident"  # stay loaded: switching back costs nothing
    RELEASE = "release"  # freed; loaded again (memory-mapped) when a later role needs them


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """Settings of one engine. All token and row counts are per engine, not per request."""

    model: str  # directory or hub id
    role: Role = Role.ALL
    dtype: str = "auto"  # "float32" | "bfloat16" | "float16"; auto: see `dtypes`
    device: str = "cpu"
    block_size: int = 16  # tokens per KV block
    num_kv_blocks: int | None = None  # None: what `memory_utilization` leaves beside the weights
    # of the device's memory (on a CPU of 2 GiB, for KV alone): the rest is for CUDA and fragments
    memory_utilization: float = 0.85
    device_share: float = 1.0  # of the device's memory; engines on one device divide it
    max_num_seqs: int = 64  # sequences in one step
    max_batched_tokens: int = 2048  # step budget, decodes and prefill chunks together
    max_model_len: int | None = None  # None: what the model was made for
    num_media_rows: int = 8192  # encoder cache; a 1-megapixel image takes about 1,300
    chunk_tokens: int = 512  # largest prefill chunk; longer chunks delay everyone's next token
    prefix_caching: bool = True
    kv_cache_dtype: str = "auto"  # as `dtype`, or "int8" | "fp8": codes of one byte
    quantization: str | None = None  # "int8" | "fp8": the language model's weights in 8 bits
    weights_policy: WeightsPolicy = WeightsPolicy.RESIDENT
    static_shapes: bool | None = None  # pad decode batches to buckets; None: on CUDA only
    cuda_graphs: bool = True  # no effect elsewhere than on CUDA
    # compile kernels, run every decode bucket and a chunk at start; None: on CUDA only
    warm_up: bool | None = None
    native_decode: bool = True  # float32 on a CPU, small models: steps compiled with the C compiler
    compile_vision: bool = False  # torch.compile between the products of the vision tower
    overlap_steps: bool | None = None  # plan a step while the last one runs; None: on CUDA only
    random_weights: bool = False  # of the model's shapes, for benches: no checkpoint is read
    # with tensor parallelism: each rank holds whole experts in slots, not a slice of every expert
    expert_parallel: bool = False
    num_redundant_experts: int = 0  # slots more than experts, in every layer that has some
    count_expert_tokens: bool = False  # tokens per expert and layer: `Engine.expert_tokens`
    worker_id: str = ""  # copied into StageTiming

    def __post_init__(self) -> None:
        """Refuse sizes that can't serve anything.

        Raises:
            InvalidRequest: naming the field.
        """
        on_gpu = self.device.startswith("cuda")
        size = self.block_size
        sizes = "16, 32 or 64 on a GPU" if on_gpu else "at least 1"
        checks = (
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            ("device", DEVICE.fullmatch(self.device), "cpu, cuda or cuda:NUMBER"),
            ("block_size", size in (16, 32, 64) if on_gpu else size >= 1, sizes),
            ("num_kv_blocks", self.num_kv_blocks is None or self.num_kv_blocks >= 1, "at least 1"),
            ("memory_utilization", 0 < self.memory_utilization <= 1, "more than 0, at most 1"),
            ("device_share", 0 < self.device_share <= 1, "more than 0, at most 1"),
            ("max_num_seqs", self.max_num_seqs >= 1, "at least 1"),
            (
                "max_batched_tokens",
                self.max_batched_tokens >= self.max_num_seqs,
                f"at least max_num_seqs, {self.max_num_seqs}",
            ),
            ("max_model_len", self.max_model_len is None or self.max_model_len >= 1, "at least 1"),
            ("chunk_tokens", self.chunk_tokens >= 1, "at least 1"),
            ("num_media_rows", self.num_media_rows >= 0, "at least 0"),
            ("kv_cache_dtype", self.kv_cache_dtype in ("auto", *CODES), "auto, int8 or fp8"),
            ("num_redundant_experts", self.num_redundant_experts >= 0, "at least 0"),
            ("quantization", self.quantization in (None, *CODES), "None, int8 or fp8"),
        )
        for field, ok, wanted in checks:
            if not ok:
                message = f"{field}: cannot be {getattr(self, field)!r}, must be {wanted}"
                raise InvalidRequest(message, field)
        if self.num_redundant_experts and not self.expert_parallel:
            raise InvalidRequest(
                f"num_redundant_experts: {self.num_redundant_experts} need expert_parallel",
                "num_redundant_experts",
            )
