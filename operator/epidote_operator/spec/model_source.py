"""This file is about the model a service serves and where its weights come from."""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from epidote_operator.spec.field_model import LIST_SET, ObjectName, SpecModel, cel_rules

BUILT_IN = ("demo", "smollm2")  # ship with the workers' image
SOURCES = "builtin://NAME, hf://OWNER/NAME[@REVISION], pvc://CLAIM[/PATH] or file:///PATH"


class ServedModality(StrEnum):
    """What requests may carry, as the resource spells it."""

    TEXT = "Text"
    IMAGE = "Image"
    VIDEO = "Video"
    AUDIO = "Audio"


class Dtype(StrEnum):
    """Number format of weights and KV cache."""

    AUTO = "Auto"
    FLOAT32 = "Float32"
    BFLOAT16 = "Bfloat16"
    FLOAT16 = "Float16"


HUB_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,95}")  # as the hub names owners and models
HUB_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]*")  # a branch, a tag, a commit
CLAIM = re.compile(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?")


class KvDtype(StrEnum):
    """Number format of keys and values, where it differs from the model's."""

    AUTO = "Auto"
    INT8 = "Int8"
    FP8 = "Fp8"


class Quantization(StrEnum):
    """Number format of the language model's weights, where it differs from the model's."""

    INT8 = "Int8"
    FP8 = "Fp8"


class SecretKey(SpecModel):
    """One key of a Secret in the service's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)]
    """Key inside the Secret."""


class ModelSpec(SpecModel):
    """The model, its names and its number format."""

    model_config = cel_rules(
        (
            "self.kvTransferDtype == 'Auto' || self.kvCacheDtype == 'Auto'",
            "must be Auto where kvCacheDtype is not: its codes travel as they are",
            ".kvTransferDtype",
        ),
    )

    uri: Annotated[str, Field(min_length=1, max_length=512)]
    """Where the weights come from: `builtin://demo`, `hf://OWNER/NAME[@REVISION]`,
    `pvc://CLAIM[/PATH]` (a PersistentVolumeClaim of this namespace, mounted read-only), or
    `file:///PATH` (inside the worker's image or a volume of the pod template)."""
    name: (
        Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*$", max_length=253)] | None
    ) = None
    """Name that clients ask for in the OpenAI field `model`. Default: the resource's own name."""
    aliases: Annotated[
        tuple[Annotated[str, Field(pattern=r"^[^,\s]+$", max_length=253)], ...],
        Field(max_length=16, json_schema_extra=LIST_SET),
    ] = ()
    """Further names it answers to; without commas and spaces."""
    modalities: Annotated[
        tuple[ServedModality, ...],
        Field(min_length=1, max_length=4, json_schema_extra=LIST_SET),
    ] = (ServedModality.TEXT, ServedModality.IMAGE)
    """What requests may carry. `[Text]` alone: the fleet has no encode workers."""
    dtype: Dtype = Dtype.AUTO
    """Number format of weights and KV cache. Auto: as stored; small models on a CPU: Float32."""
    kv_cache_dtype: KvDtype = KvDtype.AUTO
    """Number format of the KV cache. Auto: as the model computes. Int8, Fp8: codes of one byte, for
    twice the cache of 16-bit numbers; Fp8 needs GPUs of compute capability 8.9."""
    kv_transfer_dtype: KvDtype = KvDtype.AUTO
    """What KV crosses a network as. Auto: as it is kept. Int8, Fp8: codes of one byte, with a loss;
    not with another `kvCacheDtype` than Auto."""
    quantization: Quantization | None = None
    """Int8, Fp8: the language model's weights in 8 bits with a scale per output, for half of the
    bytes that a decode step reads. On a CPU only with `dtype: Float16`. Default: as `dtype`."""
    max_model_length: Annotated[int, Field(ge=16, le=16_777_216)] | None = None
    """Longest sequence in tokens, prompt and answer together. Default: the model's own limit."""
    hub_token: SecretKey | None = None
    """Token for gated models of the hub, for `hf://` sources only."""


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """A parsed `uri`: `kind` is builtin, hf, pvc or file."""

    kind: str
    name: str  # built-in name, OWNER/NAME, claim, or absolute path
    path: str = ""  # inside the claim
    revision: str = ""


def parse_source(uri: str) -> ModelSource:
    """What `uri` points at.

    Raises:
        ValueError: saying what was wanted; the value itself is left to the caller.

    >>> parse_source("hf://Qwen/Qwen2.5-VL-7B-Instruct@main").revision
    'main'
    >>> parse_source("pvc://models/qwen").path
    'qwen'
    """
    scheme, separator, rest = uri.partition("://")
    if not separator or any(character.isspace() for character in uri):
        raise ValueError(f"must be {SOURCES}")
    match scheme:
        case "builtin":
            if rest not in BUILT_IN:
                raise ValueError(f"built-in models are {', '.join(BUILT_IN)}")
            return ModelSource(kind="builtin", name=rest)
        case "hf":
            name, _, revision = rest.partition("@")
            owner, _, model = name.partition("/")
            is_named = HUB_NAME.fullmatch(owner) and HUB_NAME.fullmatch(model)
            if not is_named or ("@" in rest and not HUB_REVISION.fullmatch(revision)):
                raise ValueError(
                    "must be hf://OWNER/NAME or hf://OWNER/NAME@REVISION, of letters a to z, "
                    "digits, `.`, `_` and `-`"
                )
            return ModelSource(kind="hf", name=name, revision=revision)
        case "pvc":
            claim, _, path = rest.partition("/")
            if not _is_claim(claim) or ".." in path.split("/"):
                raise ValueError("must be pvc://CLAIM or pvc://CLAIM/PATH, without `..`")
            return ModelSource(kind="pvc", name=claim, path=path.strip("/"))
        case "file":
            if not rest.startswith("/") or ".." in rest.split("/"):
                raise ValueError("must be file:///PATH with an absolute path, without `..`")
            return ModelSource(kind="file", name=rest)
        case _:
            raise ValueError(f"must be {SOURCES}")


def _is_claim(name: str) -> bool:
    return CLAIM.fullmatch(name) is not None
