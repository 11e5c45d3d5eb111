"""This file is about pools that can't be: bounds that cross, budgets too small, two owners."""

from collections.abc import Iterator

from epidote_operator.spec.invalid import Problem, shown
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.pool import Device, PodResources, PoolSpec
from epidote_operator.spec.scaling import ScalingOwner

PATH = "spec.pool"


def pool_problems(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    """What is wrong with the pool by itself; `role_rules.py` sets it against the roles."""
    pool = spec.pool
    yield from _hardware(pool)
    if pool.min_workers > pool.max_workers:
        yield Problem(
            path=f"{PATH}.minWorkers",
            wanted=f"must be at most maxWorkers ({pool.max_workers})",
            found=shown(pool.min_workers),
        )
    yield from _budget(pool)
    if pool.workers is not None and spec.scaling.owner is not ScalingOwner.EXTERNAL:
        yield Problem(
            path=f"{PATH}.workers",
            wanted="must be left out, or scaling.owner be External: the number has one owner",
            found=shown(pool.workers),
        )


def _hardware(pool: PoolSpec) -> Iterator[Problem]:
    if pool.device is Device.CPU and pool.gpus:
        yield Problem(
            path=f"{PATH}.gpusPerWorker",
            wanted="must be 0 with device Cpu",
            found=shown(pool.gpus),
        )
    if pool.device is Device.CUDA and not pool.gpus:
        yield Problem(
            path=f"{PATH}.gpusPerWorker",
            wanted="must be at least 1 with device Cuda",
            found=shown(pool.gpus),
        )
    if pool.device is Device.CUDA and 0 < pool.gpus < pool.tensor_parallel_size:
        yield Problem(
            path=f"{PATH}.gpusPerWorker",
            wanted=f"must be at least tensorParallelSize ({pool.tensor_parallel_size})",
            found=shown(pool.gpus),
        )
    if pool.device is Device.CPU and pool.gpu_memory_utilization is not None:
        yield Problem(
            path=f"{PATH}.gpuMemoryUtilization",
            wanted="must be left out with device Cpu",
            found=shown(pool.gpu_memory_utilization),
        )
    yield from _gpu_resources(pool.resources, pool.gpu_resource_name)


def _gpu_resources(resources: PodResources, name: str) -> Iterator[Problem]:
    for kind, amounts in (("requests", resources.requests), ("limits", resources.limits)):
        if name in amounts:
            yield Problem(
                path=f"{PATH}.resources.{kind}.{name}",
                wanted="must be left out, gpusPerWorker says it",
                found=shown(amounts[name]),
            )


def _budget(pool: PoolSpec) -> Iterator[Problem]:
    if pool.gpu_budget is None:
        return
    path = f"{PATH}.gpuBudget"
    if pool.device is Device.CPU:
        yield Problem(
            path=path, wanted="must be left out with device Cpu", found=shown(pool.gpu_budget)
        )
    elif pool.gpu_budget < pool.min_workers * pool.gpus:
        least = pool.min_workers * pool.gpus
        yield Problem(
            path=path,
            wanted=f"must be at least {least} (minWorkers x gpusPerWorker)",
            found=shown(pool.gpu_budget),
        )
