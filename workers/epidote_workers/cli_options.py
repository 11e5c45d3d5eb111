"""This file is about the options that `epidote serve`, `head` and `gateway` have in common."""

from typing import Annotated

import typer

Port = Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")]
Dtype = Annotated[
    str,
    typer.Option(
        help="float32, bfloat16, float16, or auto: as stored; small models on a CPU float32."
    ),
]
KvCacheDtype = Annotated[
    str,
    typer.Option(
        help="KV cache: auto: as the model computes; int8 or fp8: half of bfloat16's bytes.",
    ),
]
KV_CACHE_DTYPES = ("auto", "int8", "fp8")
KvTransferDtype = Annotated[
    str,
    typer.Option(
        help="KV between hosts: auto: as in the cache; int8 or fp8: half of bfloat16's bytes, "
        "with a loss.",
    ),
]
Quantization = Annotated[
    str | None,
    typer.Option(
        help="int8 or fp8: the language model's weights in 8 bits. [default: as --dtype]",
    ),
]
CompileVision = Annotated[
    bool,
    typer.Option(
        "--compile-vision",
        help="torch.compile for what lies between the vision tower's products.",
    ),
]
TensorParallelSize = Annotated[
    int,
    typer.Option(
        min=1,
        help="GPUs of this machine that each worker's language model is cut over; on a CPU, "
        "processes.",
    ),
]
EnableExpertParallel = Annotated[
    bool,
    typer.Option(
        "--enable-expert-parallel",
        help="With --tensor-parallel-size: each of its processes holds whole experts, which can be "
        "moved, instead of a slice of every one.",
    ),
]
NumRedundantExperts = Annotated[
    int,
    typer.Option(
        min=0,
        help="Slots of every layer beyond one for each expert: for a second place of busy ones.",
    ),
]
KvBlocks = Annotated[
    int | None, typer.Option(min=1, help="KV blocks a worker. [default: as many as fit]")
]
GpuMemoryUtilization = Annotated[
    float,
    typer.Option(
        help="Part of a GPU's memory to use, weights and KV; workers on one GPU divide it.",
    ),
]
MaxModelLen = Annotated[
    int | None, typer.Option(min=1, help="Longest sequence in tokens. [default: the model's]")
]
KeepLogs = Annotated[bool, typer.Option(help="Keep Ray's directory with all logs.")]
