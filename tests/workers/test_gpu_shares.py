"""What a local service asks Ray for: GPUs by worker, whole ones where a model is cut over them."""

from dataclasses import replace

import pytest

from epidote_core.errors import InvalidRequest
from epidote_core.roles import Role
from epidote_workers.local import DeploymentFailed, on_device
from epidote_workers.service_settings import ReplicaSettings, ServiceSettings

TWO = ServiceSettings(
    worker=ReplicaSettings(model="demo", device="auto", tensor_parallel_size=2),
    shape={Role.PREFILL: 1, Role.DECODE: 1},
)


def test_workers_of_a_cut_model_get_whole_gpus() -> None:
    assert on_device(TWO, 4.0).worker.num_gpus == 2.0
    assert on_device(TWO, 8.0).worker.device == "cuda"


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_fewer_gpus_than_ranks_are_refused_with_both_numbers(device: str) -> None:
    settings = replace(TWO, worker=replace(TWO.worker, device=device))
    with pytest.raises(DeploymentFailed, match="2 workers of 2 GPUs need 4, found 3"):
        on_device(settings, 3.0)


def test_without_gpus_the_ranks_are_processes() -> None:
    found = on_device(TWO, 0.0).worker
    assert (found.device, found.num_gpus, found.tensor_parallel_size) == ("cpu", 0.0, 2)


def test_whole_models_share_a_gpu() -> None:
    whole = replace(TWO, worker=replace(TWO.worker, tensor_parallel_size=1))
    assert on_device(whole, 1.0).worker.num_gpus == 0.5


@pytest.mark.parametrize(
    ("num_workers", "num_gpus", "share"),
    [(4, 1.0, 0.25), (3, 1.0, 0.3333), (3, 2.0, 0.5), (4, 8.0, 1.0), (16, 2.0, 0.125)],
)
def test_workers_on_one_gpu_divide_its_memory_as_ray_places_them(
    num_workers: int, num_gpus: float, share: float
) -> None:
    worker = ReplicaSettings(model="demo", device="auto")
    found = on_device(ServiceSettings(worker=worker, shape={Role.ALL: num_workers}), num_gpus)
    assert (found.worker.num_gpus, found.worker.gpu_share) == (share, share)
    # Ray puts a worker on one GPU: as many as fit there must be enough for all
    assert int(1 / share) * num_gpus >= num_workers


@pytest.mark.parametrize("given", [0.0, -0.5, 1.01])
def test_a_memory_utilization_that_is_no_part_is_refused_by_its_flag(given: float) -> None:
    with pytest.raises(InvalidRequest, match="--gpu-memory-utilization: must be more than 0"):
        ReplicaSettings(model="demo", gpu_memory_utilization=given)
