"""Vision on a CUDA device: the same rows as on the CPU, and weights that come and go."""

import numpy as np
import pytest
import torch

from epidote_engine.processing import PromptProcessor
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model
from epidote_engine.vision.encoder import VisionEncoder
from epidote_engine.weight_store import Part, WeightStore
from epidote_engine.weights import vision_weights

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@pytest.mark.parametrize("architecture", [a for a in Architecture if a.has_vision])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_rows_are_those_of_the_cpu(tmp_path, architecture, dtype):
    save_tiny_model(tmp_path, architecture, seed=41)
    processor = PromptProcessor.from_model(str(tmp_path))
    media = [processor.prepare_image(noise_image(*s), str(s)) for s in ((90, 33), (150, 150))]
    media.append(processor.prepare_video(np.zeros((5, 60, 80, 3), np.uint8), 2.0, "v"))
    rows = {}
    for device, kind in (("cpu", torch.float32), ("cuda", dtype)):
        weights = vision_weights(processor.spec, dtype=kind, device=device)
        encoded = VisionEncoder(processor.spec, weights, kind, device).encode(media)
        rows[device] = torch.cat(encoded).float().cpu()
    error = (rows["cuda"] - rows["cpu"]).norm() / rows["cpu"].norm()
    assert error < {torch.float32: 1e-3, torch.bfloat16: 0.03, torch.float16: 0.004}[dtype]


@pytest.mark.parametrize("host_copy", [False, True])
def test_released_weights_free_the_device_and_come_back(tmp_path, host_copy):
    save_tiny_model(tmp_path, Architecture.QWEN3_VL, seed=42)
    spec = PromptProcessor.from_model(str(tmp_path)).spec
    store = WeightStore(
        spec, Part.LANGUAGE, dtype=torch.bfloat16, device="cuda", host_copy=host_copy
    )
    before = torch.cuda.memory_allocated()
    first = {name: tensor.cpu() for name, tensor in store.load().items()}
    assert torch.cuda.memory_allocated() > before
    store.release()
    assert torch.cuda.memory_allocated() == before
    assert all(torch.equal(t.cpu(), first[name]) for name, t in store.load().items())
