"""Every test of this folder runs on a CUDA device, with inputs made there, or says why not."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(autouse=True)
def on_gpu() -> Iterator[None]:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    if os.environ.get("EPIDOTE_KERNELS") == "torch" or os.environ.get("TRITON_INTERPRET") == "1":
        pytest.skip("kernels are switched off by EPIDOTE_KERNELS or TRITON_INTERPRET")
    torch.manual_seed(0)
    with torch.device("cuda"):
        yield
