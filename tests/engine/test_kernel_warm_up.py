"""An engine that warms up asks the kernels at start for all that requests will ask them for."""

from collections.abc import Callable
from typing import Any

import pytest
from torch import Tensor

from epidote_core.generation import GenerateRequest
from epidote_core.roles import Role
from epidote_core.sampling import SamplingParams
from epidote_engine.engine import Engine, EngineConfig
from epidote_engine.in_process import serve
from epidote_engine.processing import PromptProcessor
from epidote_engine.runner import Runner
from epidote_engine.text_config import Architecture
from epidote_engine.tiny_models import noise_image, save_tiny_model
from epidote_kernels import ops

LAUNCHED = (
    *("rms_norm", "add_rms_norm", "silu_mul", "rope_kv_write"),
    *("paged_decode_attention", "paged_prefill_attention", "vision_attention"),
    "moe_route",
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> set[tuple[Any, ...]]:
    """Each op that was called, by what decides about a kernel's code: types and inner sizes."""
    calls: set[tuple[Any, ...]] = set()

    def watched(name: str, op: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **keywords: Any) -> Any:
            given = [*arguments, *(value for _, value in sorted(keywords.items()))]
            tensors = [value for value in given if isinstance(value, Tensor)]
            # the first dimension is how many; a block table's width changes from step to step
            sizes = [t.shape[1:] if t.is_floating_point() else t.dim() for t in tensors]
            calls.add((name, *sizes, *(t.dtype for t in tensors)))
            return op(*arguments, **keywords)

        return run

    for name in LAUNCHED:
        monkeypatch.setattr(ops, name, watched(name, getattr(ops, name)))
    return calls


@pytest.mark.parametrize(
    ("architecture", "kv_cache_dtype"),
    [*((a, "auto") for a in Architecture), *((Architecture.QWEN3, k) for k in ("int8", "fp8"))],
)
def test_no_request_asks_for_a_kernel_that_was_not_compiled(
    architecture: Architecture,
    kv_cache_dtype: str,
    asked: set[tuple[Any, ...]],
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # the runner's own warm-up goes through the model: here the shapes alone must do
    monkeypatch.setattr(Runner, "warm_up", lambda *_: None)
    path = tmp_path_factory.mktemp("warm") / "tiny"
    save_tiny_model(path, architecture, seed=2)
    config = EngineConfig(
        model=str(path), num_kv_blocks=60, chunk_tokens=8, static_shapes=True, warm_up=True,
        kv_cache_dtype=kv_cache_dtype,
    )  # fmt: skip
    engine = Engine(config)
    assert not engine.kv_pool.tensor.float().any()
    warm = set(asked)
    asked.clear()
    processor = PromptProcessor.from_model(str(path))
    content: list[dict[str, str]] = [{"type": "text", "text": "some words"}]
    media = []
    if architecture.has_vision:
        media.append(processor.prepare_image(noise_image(60, 60), "picture"))
        content.insert(0, {"type": "image"})
        engine.submit_media(media[0])
    prompt = processor.render_chat([{"role": "user", "content": content}], media=media)
    request = GenerateRequest(
        request_id="a",
        prompt_token_ids=tuple(prompt.token_ids),
        media=tuple(prompt.media),
        sampling=SamplingParams(max_tokens=4, temperature=0.0, ignore_eos=True),
    )
    assert len(serve(engine, [request])["a", 0].token_ids) == 4
    assert asked
    assert asked <= warm


def test_an_engine_without_warm_up_asks_for_nothing_at_start(
    asked: set[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cold") / "tiny"
    save_tiny_model(path, Architecture.QWEN3, seed=2)
    Engine(EngineConfig(model=str(path), num_kv_blocks=60))  # on a CPU: none by default
    assert not asked


def test_an_encoder_is_compiled_for_as_well(
    asked: set[tuple[Any, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("encoder") / "tiny"
    save_tiny_model(path, Architecture.QWEN3_VL, seed=2)
    config = EngineConfig(model=str(path), num_kv_blocks=60, role=Role.ENCODE, warm_up=True)
    Engine(config)
    assert "vision_attention" in {name for name, *_ in asked}
