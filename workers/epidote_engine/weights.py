"""This file is about reading weights: memory-mapped safetensors, only the tensors that are needed.

Checkpoints name the same tensor differently by age. Plain names (`tensor_shapes`) are found under:

    language   layers.0.…   model.layers.0.…   model.language_model.layers.0.…
               language_model.model.layers.0.…   and lm_head.weight at any of their roots
    experts    mlp.experts.0.gate_proj.weight …, or packed (`packed_experts`)
    vision     visual.blocks.0.…   model.visual.blocks.0.…
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from epidote_engine.config import ModelSpec
from epidote_engine.model_files import InvalidModel, read_json
from epidote_engine.packed_experts import ExpertPart, PartSlice, Stored, unpacked_names
from epidote_engine.tensor_shapes import Shapes, language_shapes, vision_shapes

logger = logging.getLogger(__name__)

_VISION_PREFIXES = ("model.visual.", "visual.")
# longest first: "model." is a prefix of "model.language_model."
_LANGUAGE_PREFIXES = (
    "model.language_model.",
    "language_model.model.",
    "language_model.",
    "model.",
    "",
)
# Buffers that some checkpoints carry although they follow from the configuration.
_DERIVED_SUFFIXES = ("rotary_emb.inv_freq", "rotary_pos_emb.inv_freq")


class Checkpoint:
    """The safetensors files of one model directory, opened lazily and memory-mapped.

    A tensor that is read stays backed by its file until it is copied elsewhere: reading costs
    address space, and pages only as they are touched.
    """

    def __init__(self, directory: Path) -> None:
        """List the tensors.

        Raises:
            InvalidModel: no safetensors files, or the index names a file that is absent.
        """
        self.directory = directory
        self._files = _tensor_files(directory)

    def names(self) -> Iterable[str]:
        """Every tensor's name in the files."""
        return self._files.keys()

    def file_of(self, name: Stored) -> Path:
        """Where a tensor lies."""
        return self._files[name.tensor if isinstance(name, ExpertPart) else name]

    def slice_of(self, file: Any, name: Stored) -> Any:
        """A tensor of the opened `file` to be read in part: `get_shape()`, then `[…]`."""
        if isinstance(name, ExpertPart):
            return PartSlice(file.get_slice(name.tensor), name)
        return file.get_slice(name)

    def shape_of(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor in the files."""
        with safe_open(self._files[name], framework="pt", device="cpu") as file:
            return tuple(file.get_slice(name).get_shape())

    def check_shape(self, name: Stored, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        """Refuse a tensor that config.json contradicts.

        Raises:
            InvalidModel: naming the tensor and both shapes.
        """
        if found != wanted:
            raise InvalidModel(
                f"{self.directory}: tensor {name!r} has shape {found}, config.json asks for "
                f"{wanted}"
            )

    def read(self, names: Iterable[Stored]) -> dict[Stored, Tensor]:
        """The named tensors on the CPU, memory-mapped, in the files' own dtype."""
        by_file: dict[Path, list[Stored]] = {}
        for name in names:
            by_file.setdefault(self.file_of(name), []).append(name)
        found: dict[Stored, Tensor] = {}
        for path, wanted in by_file.items():
            try:
                with safe_open(path, framework="pt", device="cpu") as file:
                    for name in wanted:
                        if isinstance(name, ExpertPart):
                            found[name] = name.of(file.get_tensor(name.tensor))
                        else:
                            found[name] = file.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise InvalidModel(f"{path}: tensor {name!r} not readable: {error}") from error
        return found


def language_weights(
    spec: ModelSpec, *, dtype: torch.dtype, device: torch.device | str
) -> dict[str, Tensor]:
    """The language model's weights by plain name, on `device` in `dtype`.

    No vision tensor is read. Where dtype and device are the file's own the tensors stay
    memory-mapped: treat them as read-only. A tied `lm_head.weight` is absent.

    Raises:
        InvalidModel: a tensor is missing, unexpected, or of the wrong shape; it is named.
    """
    checkpoint = Checkpoint(spec.path)
    names = language_names(spec, checkpoint)
    return _load(checkpoint, names, language_shapes(spec), dtype=dtype, device=device)


def language_names(spec: ModelSpec, checkpoint: Checkpoint) -> dict[str, Stored]:
    """Plain name → the checkpoint's own, of every tensor of the language model.

    Raises:
        InvalidModel: a tensor is missing or unexpected, or packed wrongly; it is named.
    """
    plain_names: dict[str, str] = {}
    for name in checkpoint.names():
        if not name.startswith(_VISION_PREFIXES):
            plain_names[_plain(name, _LANGUAGE_PREFIXES)] = name
    experts = spec.text["experts"]
    names: dict[str, Stored] = dict(plain_names)
    if experts is not None:
        hidden = int(spec.text["hidden_size"])
        names = unpacked_names(plain_names, experts, hidden, checkpoint.shape_of)
    if spec.text["tie_word_embeddings"]:
        names.pop("lm_head.weight", None)  # some files repeat the embedding under this name
    _check_names(checkpoint, names, language_shapes(spec))
    return names


def vision_weights(
    spec: ModelSpec, *, dtype: torch.dtype, device: torch.device | str
) -> dict[str, Tensor]:
    """The vision tower's weights by plain name, on `device` in `dtype`; like `language_weights`.

    Raises:
        InvalidModel: the model has no vision tower; a tensor is missing, unexpected, mis-shaped.
    """
    if spec.vision is None:
        raise InvalidModel(f"model {spec.name!r} ({spec.architecture}) has no vision tower")
    checkpoint = Checkpoint(spec.path)
    names: dict[str, Stored] = {
        _plain(name, _VISION_PREFIXES): name
        for name in checkpoint.names()
        if name.startswith(_VISION_PREFIXES)
    }
    _check_names(checkpoint, names, vision_shapes(spec.vision))
    return _load(checkpoint, names, vision_shapes(spec.vision), dtype=dtype, device=device)


def _plain(name: str, prefixes: tuple[str, ...]) -> str:
    for prefix in prefixes:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name


def _tensor_files(directory: Path) -> dict[str, Path]:
    """Tensor name → file, from model.safetensors.index.json or the one model.safetensors."""
    index = read_json(directory, "model.safetensors.index.json")
    if index:
        files = {name: directory / file for name, file in index.get("weight_map", {}).items()}
        for path in set(files.values()):
            if not path.is_file():
                raise InvalidModel(f"{directory}: the index names {path.name}, which is absent")
        return files
    path = directory / "model.safetensors"
    if not path.is_file():
        raise InvalidModel(
            f"{directory}: neither model.safetensors nor model.safetensors.index.json; other "
            "formats must be converted with save_pretrained first"
        )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return dict.fromkeys(file.keys(), path)
    except (SafetensorError, OSError) as error:
        raise InvalidModel(f"{path}: not a readable safetensors file: {error}") from error


def _load(
    checkpoint: Checkpoint,
    names: Mapping[str, Stored],
    shapes: Shapes,
    *,
    dtype: torch.dtype,
    device: torch.device | str,
) -> dict[str, Tensor]:
    stored = checkpoint.read(names[plain] for plain in shapes)
    loaded: dict[str, Tensor] = {}
    for plain, shape in shapes.items():
        tensor = stored.pop(names[plain])
        checkpoint.check_shape(names[plain], tuple(tensor.shape), shape)
        # to the device first: a GPU converts faster, and pages are read once either way
        loaded[plain] = tensor.to(device).to(dtype)
    logger.debug("weights read", extra={"model": str(checkpoint.directory), "count": len(loaded)})
    return loaded


def _check_names(checkpoint: Checkpoint, names: Mapping[str, Stored], shapes: Shapes) -> None:
    missing = [name for name in shapes if name not in names]
    unexpected = [
        str(name)
        for plain, name in names.items()
        if plain not in shapes and not plain.endswith(_DERIVED_SUFFIXES)
    ]
    for kind, found in (("missing", missing), ("unexpected", unexpected)):
        if found:
            shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if found[5:] else "")
            raise InvalidModel(f"{checkpoint.directory}: {kind} tensors: {shown}")
