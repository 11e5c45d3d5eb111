"""bf16 and fp16 on a CPU: every architecture loads, runs, and stays close to fp32."""

import numpy as np
import pytest
import torch

from epidote_engine.one_sequence import OneSequence
from epidote_engine.processing import PromptProcessor
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model


@pytest.mark.parametrize("architecture", Architecture)
def test_half_precision_is_finite_and_close(tmp_path, architecture):
    save_tiny_model(tmp_path, architecture, seed=31)
    processor = PromptProcessor.from_model(str(tmp_path))
    media, content = (), [{"type": "text", "text": "some words"}]
    if processor.supports_images:
        video = processor.prepare_video(np.zeros((3, 40, 40, 3), np.uint8), 1.0, "v")
        media = (processor.prepare_image(noise_image(70, 99), "i"), video)
        content += [{"type": "image"}, {"type": "video"}]
    prompt = processor.render_chat([{"role": "user", "content": content}], media=media)

    def logits(dtype):
        model = OneSequence(processor.spec, dtype=dtype)
        assert model.model.dtype is dtype
        # one token: later ones would differ once a near-tie flips
        return model.generate(prompt.token_ids, prompt.media, media, num_tokens=1)[1]

    exact = logits(torch.float32)
    for dtype, tolerance in ((torch.bfloat16, 0.1), (torch.float16, 0.01)):
        rough = logits(dtype)
        assert torch.isfinite(rough).all()
        assert (rough - exact).norm() / exact.norm() < tolerance
