"""A service whose decoders refuse their settings ends with their words, beside an encoder."""

import threading

import pytest
import torch

from epidote_core.roles import Role
from epidote_workers.service_settings import ReplicaSettings, ServiceSettings
from epidote_workers.supervisor import StartFailed, Supervisor

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(), reason="8-bit weights run in float32 without oneDNN"
)
def test_a_start_that_its_decoders_refuse_is_given_up() -> None:
    worker = ReplicaSettings(model="demo", device="cpu", dtype="float32", quantization="int8")
    settings = ServiceSettings(worker=worker, shape={Role.ENCODE: 1, Role.PREFILL: 1})
    told: list[str] = []
    supervisor, never = Supervisor(), threading.Event()
    try:
        with pytest.raises(StartFailed, match=r"^Engine did not start: quantization: on a CPU"):
            supervisor.start(settings, dashboard=False, progress=told.append, stop=never)
    finally:
        supervisor.stop(never)
    assert "starting Ray Serve" in told
