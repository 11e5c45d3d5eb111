"""This file is about what a MultimodalService's schema can't say: rules that join its fields."""

from collections.abc import Iterator
from dataclasses import fields

from epidote_gateway.settings import PREFIX, GatewaySettings, InvalidSettings
from epidote_operator.spec.cluster import Provider
from epidote_operator.spec.invalid import Problem, names, repeated, shown
from epidote_operator.spec.model_source import Dtype, KvDtype, parse_source
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.pool import Device
from epidote_operator.spec.pool_rules import pool_problems
from epidote_operator.spec.role_rules import role_problems
from epidote_operator.spec.template_rules import template_problems

SECRET_SETTINGS = ("api_keys", "admin_key")
SETTINGS = tuple(item.name for item in fields(GatewaySettings) if item.name not in SECRET_SETTINGS)


def service_problems(spec: MultimodalServiceSpec) -> list[Problem]:
    """Everything that is wrong with a spec whose fields are right one by one."""
    return [
        *_model(spec),
        *pool_problems(spec),
        *_objectives(spec),
        *_experts(spec),
        *role_problems(spec),
        *_scaling(spec),
        *_gateway(spec),
        *template_problems(spec),
    ]


def provider_problems(spec: MultimodalServiceSpec, *, kuberay: bool) -> list[Problem]:
    """Whether this operator may make the fleet: RayClusters are a right of their own."""
    provider = spec.cluster.provider
    if kuberay or provider is not Provider.KUBERAY:
        return []
    wanted = "must be Pods: this operator was installed without kuberay.enabled"
    return [Problem(path="spec.cluster.provider", wanted=wanted, found=shown(provider.value))]


def _model(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    model = spec.model
    try:
        source = parse_source(model.uri)
    except ValueError as error:
        yield Problem(path="spec.model.uri", wanted=str(error), found=shown(model.uri))
    else:
        if model.hub_token is not None and source.kind != "hf":
            yield Problem(
                path="spec.model.hubToken",
                wanted="must be left out unless the model comes from hf://",
                found=shown(model.uri),
            )
    if KvDtype.AUTO not in (model.kv_cache_dtype, model.kv_transfer_dtype):
        yield Problem(
            path="spec.model.kvTransferDtype",
            wanted="must be Auto where kvCacheDtype is not: its codes travel as they are",
            found=shown(model.kv_transfer_dtype.value),
        )
    on_cpu = spec.pool.device is Device.CPU
    if model.quantization is not None and on_cpu and model.dtype is not Dtype.FLOAT16:
        yield Problem(
            path="spec.model.quantization",
            wanted="must be left out, or model.dtype be Float16: pool.device is Cpu",
            found=shown(model.quantization.value),
        )
    yield from repeated("spec.model.modalities", model.modalities)
    yield from repeated("spec.model.aliases", model.aliases)


def _objectives(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    listed = [item.modality for item in spec.slo.per_modality]
    for number, modality in enumerate(listed):
        if modality not in spec.model.modalities:
            yield Problem(
                path=f"spec.slo.perModality[{number}].modality",
                wanted=f"must be one of model.modalities ({names(spec.model.modalities)})",
                found=shown(modality.value),
            )
    yield from repeated("spec.slo.perModality", listed, ".modality")


def _experts(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    experts, path = spec.experts, "spec.experts"
    if experts.parallel and spec.pool.tensor_parallel_size < 2:
        yield Problem(
            path=f"{path}.parallel",
            wanted="must be false, or pool.tensorParallelSize at least 2: experts lie on a worker's"
            " GPUs",
            found=shown(experts.parallel),
        )
    if experts.redundant_experts and not experts.parallel:
        yield Problem(
            path=f"{path}.redundantExperts",
            wanted="must be 0, or parallel be true: only whole experts have slots",
            found=shown(experts.redundant_experts),
        )


def _scaling(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    scaling, pressure = spec.scaling, spec.scaling.pressure
    if scaling.metrics_timeout_seconds < scaling.tick_seconds:
        yield Problem(
            path="spec.scaling.metricsTimeoutSeconds",
            wanted=f"must be at least tickSeconds ({scaling.tick_seconds})",
            found=shown(scaling.metrics_timeout_seconds),
        )
    if pressure.leave_load_percent >= pressure.enter_load_percent:
        yield Problem(
            path="spec.scaling.pressure.leaveLoadPercent",
            wanted=f"must be less than enterLoadPercent ({pressure.enter_load_percent})",
            found=shown(pressure.leave_load_percent),
        )


def _gateway(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    for name, value in spec.gateway.settings.items():
        path = f"spec.gateway.settings.{name}"
        if name.lower() in SECRET_SETTINGS:
            wanted = "must be left out, keys belong into a Secret"
        elif name not in SETTINGS:
            wanted = f"must be left out, there is no such setting; known: {', '.join(SETTINGS)}"
        else:
            yield from _gateway_setting(path, name, value)
            continue
        yield Problem(path=path, wanted=wanted, found="a value")


def _gateway_setting(path: str, name: str, value: str) -> Iterator[Problem]:
    try:
        GatewaySettings.from_env({PREFIX + name.upper(): value})
    except InvalidSettings as error:
        told = str(error).partition(": ")[2]
        yield Problem(path=path, wanted=told.partition(", got ")[0], found=shown(value))
