"""This file is about `epidote serve`: from flags to a running service, and its end."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from epidote_core.errors import EpidoteError, InvalidRequest
from epidote_core.roles import Role, Stage
from epidote_gateway.settings import GatewaySettings, InvalidSettings, parse_keys
from epidote_workers import cli_options as option
from epidote_workers.assignment import (
    EVERY_STAGE,
    TEXT_STAGES,
    check_counts,
    parse_counts,
    resize,
)
from epidote_workers.cache_policy_notice import tell_about_policy
from epidote_workers.cache_settings import with_cache
from epidote_workers.cli_running import EXIT_USAGE, fail, note, run
from epidote_workers.node_settings import device_here
from epidote_workers.port_reservation import HostNotOurs, PortReservation, PortTaken
from epidote_workers.service_settings import Ingress, ReplicaSettings, ServiceSettings

DEFAULT_SHAPE = {Role.ENCODE: 1, Role.PREFILL: 1, Role.DECODE: 2}
EXPERT_FLAGS = {
    "expert_parallel": "--enable-expert-parallel",
    "num_redundant_experts": "--num-redundant-experts",
}
TEXT_SHAPE = {Role.PREFILL: 1, Role.DECODE: 3}


def serve(
    model: Annotated[
        str, typer.Option(help="demo, smollm2, a Hugging Face directory, or a hub id.")
    ] = "demo",
    workers: Annotated[
        int | None, typer.Option(min=1, help="Number of workers. [default: as --roles; 4]")
    ] = None,
    roles: Annotated[
        str, typer.Option(help="Who does what: encode=1,prefill=1,decode=2, or all=4.")
    ] = "",
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: option.Port = 8000,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            help="Key that clients must send, or tenant:key; may be given several times. The "
            "first, if bare, also opens /admin, unless EPIDOTE_GATEWAY_ADMIN_KEY is set.",
            envvar="EPIDOTE_API_KEY",
        ),
    ] = None,
    dtype: option.Dtype = "auto",
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
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
    threads: Annotated[int, typer.Option(min=1, help="CPU threads a worker computes with.")] = 1,
    gateways: Annotated[int, typer.Option(min=1, help="HTTP processes sharing the port.")] = 1,
    ingress: Annotated[
        Ingress, typer.Option(help="own: the gateway listens. serve: behind Ray Serve's proxy.")
    ] = Ingress.OWN,
    cache_policy: Annotated[
        Path | None, typer.Option(help="Response cache: a CachePolicy file, followed live.")
    ] = None,
    cache_store: Annotated[
        str, typer.Option(help="sqlite:PATH or redis://HOST:PORT/DB. [default: in ~/.cache]")
    ] = "",
    dashboard: Annotated[bool, typer.Option(help="Start Ray's dashboard too.")] = False,
    keep_logs: option.KeepLogs = False,
) -> None:
    """Serve a model on this machine until Ctrl-C.

    Example: epidote serve --model demo --roles encode=1,prefill=1,decode=2 --port 8000
    """
    try:
        stages = model_stages(model, max_model_len)
        check_cut(
            model,
            tensor_parallel_size,
            redundant_experts(enable_expert_parallel, num_redundant_experts),
        )
        shape = split(roles, workers, stages)
        settings = ServiceSettings(
            worker=ReplicaSettings(
                model=model,
                dtype=choice("dtype", dtype, ("auto", "float32", "bfloat16", "float16")),
                device=choice("device", device, ("auto", "cpu", "cuda")),
                kv_cache_dtype=choice("kv-cache-dtype", kv_cache_dtype, option.KV_CACHE_DTYPES),
                kv_transfer_dtype=choice(
                    "kv-transfer-dtype", kv_transfer_dtype, option.KV_CACHE_DTYPES
                ),
                quantization=quantized(quantization, dtype, quantization and device_here(device)),
                compile_vision=compile_vision,
                tensor_parallel_size=tensor_parallel_size,
                expert_parallel=enable_expert_parallel,
                num_redundant_experts=num_redundant_experts,
                num_kv_blocks=kv_blocks,
                gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_len,
                num_threads=threads,
            ),
            shape=shape,
            stages=stages,
            host=host,
            ingress=ingress,
            num_gateways=gateways,
            gateway=with_cache(
                gateway_settings(api_key or []),
                policy=cache_policy,
                store=cache_store,
                model=model,
                weights=model_weights(model),
            ),
        )
        reservation = PortReservation(host, port)
    except PortTaken as error:
        fail(f"--port: {error}; stop the other one or give another port (0: any free)")
    except HostNotOurs as error:
        fail(f"--host: {error}", EXIT_USAGE)
    except (EpidoteError, ValueError) as error:
        fail(str(error), EXIT_USAGE)
    with reservation:
        settings = replace(settings, port=reservation.port)
        tell_about_policy(settings.gateway.cache_policy, note)
        raise typer.Exit(run(settings, dashboard=dashboard, keep_logs=keep_logs))


def split(roles: str, workers: int | None, stages: tuple[Stage, ...]) -> Mapping[Role, int]:
    """The counts that `--roles` and `--workers` ask for together.

    Raises:
        InvalidRequest: naming the flags.
    """
    if not roles:
        shape = DEFAULT_SHAPE if Stage.ENCODE in stages else TEXT_SHAPE
        return resize(shape, workers or sum(shape.values()))
    try:
        counts = parse_counts(roles)
        check_counts(counts, sum(counts.values()) if workers is None else workers, stages)
    except InvalidRequest as error:
        flags = "--roles" if workers is None else f"--roles with --workers {workers}"
        message = str(error).removeprefix("roles: ")
        raise InvalidRequest(f"{flags}: {message}", "roles") from error
    return counts


def choice(flag: str, given: str, known: tuple[str, ...]) -> str:
    if given not in known:
        raise InvalidRequest(f"--{flag}: must be one of {', '.join(known)}, got {given!r}", flag)
    return given


def gateway_settings(api_keys: list[str]) -> GatewaySettings:
    """The environment's settings, with the keys of the command line before all."""
    settings = GatewaySettings.from_env()
    if not api_keys:
        return settings
    try:
        keys = parse_keys(api_keys)
    except ValueError as error:
        raise InvalidSettings(f"--api-key: {error}") from error
    # Whose key names a tenant is one of several: none of them administrates the others.
    own = "" if ":" in api_keys[0] else keys[0][1]
    return replace(settings, api_keys=keys, admin_key=settings.admin_key or own)


def model_stages(model: str, max_model_len: int | None = None) -> tuple[Stage, ...]:
    """The stages that the model has. Fails now, clearly, rather than in every worker.

    Raises:
        InvalidModel
        InvalidRequest: the model was not made for so long sequences.
    """
    from epidote_engine.config import load_model_spec

    spec = load_model_spec(model)
    if max_model_len is not None and max_model_len > spec.max_positions:
        raise InvalidRequest(
            f"--max-model-len: {model} takes at most {spec.max_positions} tokens, "
            f"got {max_model_len}",
            "max_model_len",
        )
    return tuple(TEXT_STAGES if spec.vision is None else EVERY_STAGE)


def redundant_experts(expert_parallel: bool, redundant: int) -> int | None:
    """Slots beyond one for each expert; None: experts are cut.

    Raises:
        InvalidRequest: redundant ones of experts that are cut.
    """
    if redundant and not expert_parallel:
        message = f"--num-redundant-experts: {redundant} need --enable-expert-parallel"
        raise InvalidRequest(message, "num_redundant_experts")
    return redundant if expert_parallel else None


def quantized(kind: str | None, dtype: str, device: str | None) -> str | None:
    """`kind`, if there are such weights, and where they are computed with has a product for them.

    Raises:
        InvalidRequest: naming the flag.
    """
    if kind is None:
        return None
    choice("quantization", kind, ("int8", "fp8"))
    if device == "cpu" and dtype != "float16":
        message = f"--quantization {kind}: on a CPU with --dtype float16 only, got {dtype}"
        raise InvalidRequest(message, "quantization")
    return kind


def check_cut(model: str, tensor_parallel_size: int, redundant: int | None = None) -> None:
    """Fails now, clearly, rather than in every worker. `redundant`: see `redundant_experts`.

    Raises:
        InvalidRequest: the model can't be cut into so many parts, or its experts not be shared out.
    """
    if tensor_parallel_size == 1 and redundant is None:
        return
    from epidote_engine.config import load_model_spec
    from epidote_engine.parallel.shards import Shards  # torch: only where it is needed

    try:
        Shards.place(0, tensor_parallel_size).check(load_model_spec(model).decoder, redundant)
    except InvalidRequest as error:
        field = error.field if error.field in EXPERT_FLAGS else "tensor_parallel_size"
        flag = EXPERT_FLAGS.get(field, "--tensor-parallel-size")
        message = f"{flag}: {str(error).removeprefix(f'{field}: ')}"
        raise InvalidRequest(message, field) from error


def model_weights(model: str) -> Path:
    """Where the model's files lie; raises as `model_stages`."""
    from epidote_engine.config import load_model_spec

    return load_model_spec(model).path
