"""Settings that can't serve anything are refused by their field, with what was wanted and found."""

from typing import Any

import pytest
import torch

from epidote_core.errors import InvalidRequest
from epidote_engine.engine import Engine, EngineConfig

REFUSED = (
    ({"dtype": "float8"}, "dtype: cannot be 'float8', must be one of auto, float32"),
    ({"device": "gpu"}, "device: cannot be 'gpu', must be cpu, cuda or cuda:NUMBER"),
    ({"device": "cuda:"}, "device: cannot be 'cuda:'"),
    ({"block_size": 0}, "block_size: cannot be 0, must be at least 1"),
    ({"block_size": 48, "device": "cuda"}, "block_size: cannot be 48, must be 16, 32 or 64"),
    ({"num_kv_blocks": 0}, "num_kv_blocks: cannot be 0"),
    ({"memory_utilization": 1.5}, "memory_utilization: cannot be 1.5, must be more than 0"),
    ({"memory_utilization": 0.0}, "memory_utilization: cannot be 0.0"),
    ({"memory_utilization": float("nan")}, "memory_utilization: cannot be nan"),
    ({"device_share": 2.0}, "device_share: cannot be 2.0"),
    ({"max_model_len": 0}, "max_model_len: cannot be 0, must be at least 1"),
    ({"max_num_seqs": 9, "max_batched_tokens": 8}, "must be at least max_num_seqs, 9"),
    ({"chunk_tokens": 0}, "chunk_tokens: cannot be 0"),
    ({"num_media_rows": -1}, "num_media_rows: cannot be -1"),
)


@pytest.mark.parametrize(("given", "words"), REFUSED)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as refused:
        EngineConfig(model="none", **given)
    assert refused.value.field in given


@pytest.mark.parametrize(
    "given",
    [{"block_size": 48}, {"block_size": 64, "device": "cuda:3"}, {"memory_utilization": 1.0}],
)
def test_what_can_be_is_not(given: dict[str, Any]) -> None:
    EngineConfig(model="none", **given)


def test_a_gpu_that_is_not_there_is_refused_before_anything_is_read() -> None:
    name = f"cuda:{torch.cuda.device_count() if torch.cuda.is_available() else 0}"
    with pytest.raises(
        InvalidRequest, match=f"device: {name}: found . GPUs .this torch"
    ) as refused:
        Engine(EngineConfig(model="no such model", device=name))
    assert refused.value.field == "device"
