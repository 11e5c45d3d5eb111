"""This file is about turning texts into unit vectors, in the calling thread."""

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from epidote_gateway.cache.meaning.model_files import (
    CONFIG,
    ONNX_GRAPH,
    TOKENIZER,
    WEIGHTS,
    NoSentenceModel,
    model_directory,
)
from epidote_gateway.cache.protocols import Vectors

CHARACTERS_PER_TOKEN = 16  # more than any language needs; bounds what a tokenizer is given
SUB_BATCH = 16  # texts at once: on one core more of them saves nothing, and padding costs


class SentenceModel:
    """A tokenizer and an onnxruntime session. Thread-safe; one core a call.

    A text's vector does not depend on its neighbours in the batch beyond float rounding (1e-6).
    """

    def __init__(self, model: str, *, max_tokens: int) -> None:
        """Reads and compiles the model: half a second.

        Raises:
            NoSentenceModel: files or libraries are missing, or the files are no such model.
        """
        directory = model_directory(model)
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise _libraries_missing(error) from error
        try:
            self._tokenizer = Tokenizer.from_file(str(directory / TOKENIZER))
        except Exception as error:  # tokenizers raises bare Exception for a bad file
            raise NoSentenceModel(f"embedder.model: {directory / TOKENIZER}: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._unknown_id = self._tokenizer.token_to_id("[UNK]")
        self._max_tokens = max_tokens
        self._max_characters = max_tokens * CHARACTERS_PER_TOKEN
        self._session, digest = _open_session(directory)
        self._inputs = {item.name for item in self._session.get_inputs()}
        self.name = f"{Path(model).name}-{digest}-{max_tokens}"
        self.dimensions = self.embed(["a"]).shape[1]

    def is_whole(self, text: str) -> bool:
        """Whether the model reads every word of `text`: no cut, and no word unknown to it."""
        if len(text) > self._max_characters:
            return False
        encoded = self._tokenizer.encode(text)
        return not encoded.overflowing and self._unknown_id not in encoded.ids

    def embed(self, texts: Sequence[str]) -> Vectors:
        """float32 [len(texts), dimensions], rows of length 1. Texts of like length go together."""
        encoded = self._tokenizer.encode_batch([text[: self._max_characters] for text in texts])
        ids = [item.ids for item in encoded]
        order = sorted(range(len(ids)), key=lambda number: len(ids[number]))
        found: list[Any] = [None] * len(ids)
        for start in range(0, len(order), SUB_BATCH):
            batch = order[start : start + SUB_BATCH]
            for number, vector in zip(batch, self._run([ids[n] for n in batch]), strict=True):
                found[number] = vector
        return np.stack(found) if found else np.zeros((0, self.dimensions), np.float32)

    def _run(self, ids: list[list[int]]) -> Vectors:
        shape = len(ids), max(len(row) for row in ids)
        padded, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        for number, row in enumerate(ids):
            padded[number, : len(row)] = row
            mask[number, : len(row)] = 1
        feeds = {"input_ids": padded, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            feeds["token_type_ids"] = np.zeros(shape, np.int64)
        output: NDArray[np.float32] = self._session.run(None, feeds)[0]
        if output.ndim == 3:  # a model exported without its pooling: the mean, as MiniLM's
            output = (output * mask[..., None]).sum(axis=1, dtype=np.float32)
        length = np.linalg.norm(output, axis=1, keepdims=True)
        unit: Vectors = (output / np.maximum(length, 1e-12)).astype(np.float32, copy=False)
        return unit


def _open_session(directory: Path) -> tuple[Any, str]:
    """The session and a digest of its weights."""
    try:
        import onnxruntime

        if (directory / ONNX_GRAPH).is_file():
            graph = (directory / ONNX_GRAPH).read_bytes()
            digest = blake2b(graph, digest_size=6).hexdigest()
        else:
            from safetensors.numpy import load

            from epidote_gateway.cache.meaning.bert_graph import build

            config = json.loads((directory / CONFIG).read_text())
            content = (directory / WEIGHTS).read_bytes()
            digest = blake2b(content, digest_size=6).hexdigest()
            graph = build(load(content), config)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1  # cores are the engine's
        providers = ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(graph, options, providers=providers), digest
    except ImportError as error:
        raise _libraries_missing(error) from error
    except Exception as error:  # each library has its own; all mean that the files are no model
        raise NoSentenceModel(
            f"embedder.model: {directory}: not a model that can be run: {error}"
        ) from error


def _libraries_missing(error: ImportError) -> NoSentenceModel:
    return NoSentenceModel(
        f"embedder.model: {error}: comparing by meaning needs `pip install 'epidote[cache]'`"
    )
