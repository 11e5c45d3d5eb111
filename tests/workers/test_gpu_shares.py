"""What a local service asks Ray for: GPUs by worker, whole ones where a model is cut over them."""

from dataclasses import replace

import pytest

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
