"""This file is about `epidote head`: the part of a fleet that its workers join."""

import contextlib
from dataclasses import replace
from typing import Annotated

import typer

from epidote_core.errors import EpidoteError
from epidote_workers import cli_options as option
from epidote_workers.assignment import TEXT_STAGES
from epidote_workers.cli_running import EXIT_USAGE, fail, run
from epidote_workers.cli_serve import (
    check_cut,
    choice,
    gateway_settings,
    model_stages,
    quantized,
    redundant_experts,
    split,
)
from epidote_workers.port_reservation import PortReservation, PortTaken
from epidote_workers.ray_environment import shared_token
from epidote_workers.service_settings import ReplicaSettings, ServiceSettings


def head(
    model: Annotated[
        str, typer.Option(help="As for serve. A directory must be the same on every worker.")
    ] = "demo",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers that will join. [default: as --roles; 4]")
    ] = None,
    roles: Annotated[str, typer.Option(help="Who shall do what, as for serve.")] = "",
    ray_host: Annotated[
        str, typer.Option(help="This machine's address (a pod's IP) that workers join at.")
    ] = "127.0.0.1",
    ray_port: Annotated[int, typer.Option(min=1, max=65535, help="And the port.")] = 6379,
    gateways: Annotated[
        int, typer.Option(min=0, help="HTTP processes here. 0: only `epidote gateway` ones.")
    ] = 1,
    host: Annotated[str, typer.Option(help="Address the gateways listen on.")] = "127.0.0.1",
    port: option.Port = 8000,
    api_key: Annotated[
        list[str] | None, typer.Option(help="As for serve.", envvar="EPIDOTE_API_KEY")
    ] = None,
    dtype: option.Dtype = "auto",
    device: Annotated[str, typer.Option(help="auto: as each worker finds; cpu or cuda.")] = "auto",
    kv_cache_dtype: option.KvCacheDtype = "auto",
    kv_transfer_dtype: option.KvTransferDtype = "auto",
    quantization: option.Quantization = None,
    compile_vision: option.CompileVision = False,
    tensor_parallel_size: option.TensorParallelSize = 1,
    enable_expert_parallel: option.EnableExpertParallel = False,
    num_redundant_experts: option.NumRedundantExperts = 0,
    kv_blocks: option.KvBlocks = None,
    gpu_memory_utilization: option.GpuMemoryUtilization = 0.85,
    max_model_len: option.MaxModelLen = None,
    text_only: Annotated[
        bool, typer.Option(help="Nobody encodes; pictures are refused, whatever the model takes.")
    ] = False,
    drain: Annotated[
        float, typer.Option(min=0.0, help="Seconds for work under way on a worker that goes.")
    ] = 30.0,
    keep_logs: option.KeepLogs = False,
) -> None:
    """Start the head of a fleet: its register and gateways. Workers join with `epidote worker`.

    RAY_AUTH_TOKEN must be set, to the same secret for head and workers.

    Example: epidote head --model demo --roles encode=1,prefill=1,decode=2 --ray-host 10.0.0.5
    """
    try:
        shared_token()
        if ray_host in ("0.0.0.0", "::"):
            fail(f"--ray-host: must be an address that workers reach, got {ray_host}", EXIT_USAGE)
        stages = model_stages(model, max_model_len)
        stages = tuple(TEXT_STAGES) if text_only else stages
        check_cut(
            model,
            tensor_parallel_size,
            redundant_experts(enable_expert_parallel, num_redundant_experts),
        )
        settings = ServiceSettings(
            worker=ReplicaSettings(
                model=model,
                dtype=choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16")),
                device=choice("device", device, ("auto", "cpu", "cuda")),
                kv_cache_dtype=choice("kv-cache-dtype", kv_cache_dtype, option.KV_CACHE_DTYPES),
                kv_transfer_dtype=choice(
                    "kv-transfer-dtype", kv_transfer_dtype, option.KV_CACHE_DTYPES
                ),
                quantization=quantized(quantization, dtype, device),
                compile_vision=compile_vision,
                tensor_parallel_size=tensor_parallel_size,
                expert_parallel=enable_expert_parallel,
                num_redundant_experts=num_redundant_experts,
                num_kv_blocks=kv_blocks,
                gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_len,
                drain_s=drain,
                joins=True,
            ),
            shape=split(roles, workers, stages),
            stages=stages,
            host=host,
            num_gateways=gateways,
            gateway=gateway_settings(api_key or []),
            ray_host=ray_host,
            ray_port=ray_port,
        )
        with PortReservation(ray_host, ray_port):  # free, and ours to use, right now
            pass
        reservation = PortReservation(host, port) if gateways else contextlib.nullcontext()
    except PortTaken as error:
        fail(f"--port or --ray-port: {error}")
    except (EpidoteError, ValueError) as error:
        fail(str(error), EXIT_USAGE)
    with reservation:
        if isinstance(reservation, PortReservation):
            settings = replace(settings, port=reservation.port)
        raise typer.Exit(run(settings, dashboard=False, keep_logs=keep_logs))
