"""This file is about finding a model's files: aliases, directories, the Hugging Face hub; no torch.

A model is named by an alias of `ALIASES`, by the path of a directory in Hugging Face's layout, or
by a hub id ("Qwen/Qwen3-VL-2B-Instruct").
"""

import json
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from epidote_core.errors import EpidoteError

# What a model directory is made of; hub snapshots are restricted to these.
HUB_PATTERNS = ("*.json", "*.safetensors", "*.jinja", "merges.txt", "vocab.txt")


class InvalidModel(EpidoteError, ValueError):
    """The model can't be found, read, or run by this engine; the message says which and why."""


def _demo_directory() -> Path:
    # find_spec locates the package without importing it: the engine never imports its shell
    spec = find_spec("epidote_workers")
    if spec is None or not spec.submodule_search_locations:
        raise InvalidModel(
            "model 'demo' lies in the package epidote_workers, which is not installed; "
            "install epidote with its workers, or name a model directory"
        )
    directory = Path(next(iter(spec.submodule_search_locations))) / "demo_model"
    if not (directory / "config.json").is_file():
        raise InvalidModel(
            f"model 'demo': {directory} has no config.json; train it with workers/training, "
            "or name a model directory"
        )
    return directory


def _smollm2_directory() -> Path:
    from epidote_engine.smollm2 import smollm2_directory

    return smollm2_directory()


# The one table of aliases: short name → function that gives the directory (and may prepare it).
ALIASES: Mapping[str, Callable[[], Path]] = {
    "demo": _demo_directory,
    "smollm2": _smollm2_directory,
}


def model_directory(model: str) -> Path:
    """The local directory of `model`; a hub id is downloaded unless it is cached already.

    Raises:
        InvalidModel: no such directory, no such hub id, or the hub can't be reached.
    """
    if model in ALIASES:
        return ALIASES[model]()
    directory = Path(model).expanduser()
    if directory.is_dir():
        if not (directory / "config.json").is_file():
            raise InvalidModel(f"model {model!r}: the directory has no config.json")
        return directory
    if directory.is_absolute() or model.startswith((".", "~")) or model.count("/") != 1:
        raise InvalidModel(
            f"model {model!r}: neither a directory nor a hub id (owner/name) nor one of "
            f"{', '.join(sorted(ALIASES))}"
        )
    return _hub_directory(model)


def _hub_directory(model: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError
    except ImportError as error:
        raise InvalidModel(
            f"model {model!r} is a hub id and huggingface_hub is not installed; "
            "install epidote[workers] or name a model directory"
        ) from error
    try:
        name, _, revision = model.partition("@")  # owner/name@revision
        found = snapshot_download(name, revision=revision or None, allow_patterns=[*HUB_PATTERNS])
        return Path(found)
    except (HfHubHTTPError, OSError, ValueError) as error:
        # offline and unknown repository come as different classes, all with long advice
        reason = str(error).strip().partition("\n")[0]
        raise InvalidModel(
            f"model {model!r}: not in the local hub cache and not downloadable "
            f"({type(error).__name__}: {reason}). Check the name and the network (HF_HUB_OFFLINE, "
            "HF_TOKEN for gated models), or copy the model here and name its directory"
        ) from error


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """The object in `directory/name`; {} if there is no such file.

    Raises:
        InvalidModel: the file is no JSON object.
    """
    path = directory / name
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidModel(f"{path}: not readable as JSON: {error}") from error
    if not isinstance(value, dict):
        raise InvalidModel(f"{path}: wanted a JSON object, found {type(value).__name__}")
    return value
