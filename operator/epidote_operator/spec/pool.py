"""This file is about the workers that Kubernetes owns: their hardware, their number, their pods."""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field

from epidote_operator.spec.field_model import MAX_WORKERS, SpecModel, WorkerCount, cel_rules

# Checked by the API server when the pod is created, passed through untouched until then.
PASS_THROUGH = {"x-kubernetes-preserve-unknown-fields": True}
Quantity = Annotated[
    str, Field(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$", max_length=32)
]


class Device(StrEnum):
    """What a worker computes on."""

    CUDA = "Cuda"
    CPU = "Cpu"


class PodResources(SpecModel):
    """Requests and limits of a container, beside its GPUs."""

    requests: dict[str, Quantity] = Field(default_factory=dict)
    """Least amounts, such as `cpu: "4"` and `memory: 32Gi`."""
    limits: dict[str, Quantity] = Field(default_factory=dict)
    """Most amounts. GPUs are added from `gpusPerWorker`."""


class PodTemplate(SpecModel):
    """A core/v1 PodTemplateSpec that is laid over the generated pod.

    Labels and annotations are added; of `spec`, any field may be given. Containers are merged by
    name (the worker's is `worker`, the head's `head`, the gateway's `gateway`).
    """

    metadata: Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)] = Field(
        default_factory=dict
    )
    """Labels and annotations to add. Labels of the domain `epidote.dev` belong to the operator."""
    spec: Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)] = Field(
        default_factory=dict
    )
    """Fields of a core/v1 PodSpec: tolerations, affinity, topologySpreadConstraints,
    priorityClassName, nodeSelector, runtimeClassName, volumes, containers and so on."""


class PoolSpec(SpecModel):
    """One pool of equal workers. The operator decides how many there are, and each one's role."""

    model_config = cel_rules(
        ("self.minWorkers <= self.maxWorkers", "must be at most maxWorkers", ".minWorkers"),
        (
            "!has(self.gpusPerWorker) || (self.gpusPerWorker == 0) == (self.device == 'Cpu')",
            "must be 0 with device Cpu, and at least 1 with device Cuda",
            ".gpusPerWorker",
        ),
        (
            "!has(self.gpusPerWorker) || self.device == 'Cpu' || self.gpusPerWorker == 0"
            " || self.gpusPerWorker >= self.tensorParallelSize",
            "must be at least tensorParallelSize",
            ".gpusPerWorker",
        ),
        (
            "!has(self.gpuBudget) || self.device == 'Cuda'",
            "must be left out with device Cpu",
            ".gpuBudget",
        ),
        (
            "!has(self.gpuMemoryUtilization) || self.device == 'Cuda'",
            "must be left out with device Cpu",
            ".gpuMemoryUtilization",
        ),
        (
            "!has(self.gpuBudget) || self.gpuBudget >= self.minWorkers *"
            " (has(self.gpusPerWorker) ? self.gpusPerWorker : self.tensorParallelSize)",
            "must be at least minWorkers x gpusPerWorker",
            ".gpuBudget",
        ),
        (
            "self.device == oldSelf.device",
            "can't be changed: delete the service and create it again",
            ".device",
        ),
    )

    device: Device = Device.CUDA
    """What a worker computes on. Cpu is for trying out and for tests."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] | None = None
    """GPUs of one worker. Default: `tensorParallelSize`, or 0 with `device: Cpu`."""
    tensor_parallel_size: Annotated[int, Field(ge=1, le=16)] = 1
    """GPUs that a worker's language model is cut over, all of one pod; with `device: Cpu`,
    processes. The model's heads and channels must be divisible by it."""
    gpu_resource_name: Annotated[
        str, Field(pattern=r"^[a-z0-9.-]+/[A-Za-z0-9._-]+$", max_length=253)
    ] = "nvidia.com/gpu"
    """Extended resource that stands for one GPU."""
    cpu_threads: Annotated[int, Field(ge=1, le=256)] = 1
    """Threads a worker computes with on the CPU."""
    kv_blocks: Annotated[int, Field(ge=1, le=100_000_000)] | None = None
    """KV cache blocks of a worker. Default: as many as fit its memory."""
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Part of each GPU's memory that a worker uses, weights and KV cache together. Default: the
    workers' own, 0.85. What is left is for CUDA itself, and for whatever else is on the GPU."""
    min_workers: WorkerCount = 1
    """Least workers of the pool, all roles together. The roles' own minima count as well."""
    max_workers: Annotated[int, Field(ge=1, le=MAX_WORKERS)]
    """Most workers of the pool, all roles together."""
    gpu_budget: Annotated[int, Field(ge=1, le=MAX_WORKERS * 16)] | None = None
    """Most GPUs that the service may hold, workers that start or switch included. Default: only
    `maxWorkers` bounds it."""
    workers: WorkerCount | None = None
    """Workers of the pool when somebody else owns their number (`scaling.owner: External`): this is
    what `kubectl scale`, a HorizontalPodAutoscaler or KEDA writes through `/scale`. A number that
    the pool or its roles don't permit is taken into their bounds; ScalingLimited says so."""
    resources: PodResources = PodResources()
    """Requests and limits of the worker container."""
    template: PodTemplate = PodTemplate()
    """Laid over the generated worker pods."""

    @property
    def gpus(self) -> int:
        """GPUs of one worker; 0 on the CPU."""
        if self.gpus_per_worker is not None:
            return self.gpus_per_worker
        return self.tensor_parallel_size if self.device is Device.CUDA else 0

    @property
    def most_pods(self) -> int | None:
        """Pods at once, those of two revisions together; None without a GPU budget."""
        if self.gpu_budget is None or not self.gpus:
            return None
        return self.gpu_budget // self.gpus

    @property
    def most(self) -> int:
        """Most workers, under `max_workers` and the GPU budget."""
        if self.gpu_budget is None or not self.gpus:
            return self.max_workers
        return min(self.max_workers, self.gpu_budget // self.gpus)
