"""This file is about changes to a service that already serves: live, rolling, or impossible."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from epidote_operator.spec.invalid import Problem, shown
from epidote_operator.spec.load_test import LoadTestSpec
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec

# Every pod of one fleet must agree on these, and no running fleet can be moved over.
FIXED = ("cluster.provider", "pool.device")
# Parts of a worker: a change starts a fleet of the new revision beside the old one.
ROLLING = (
    "model.uri",
    "model.modalities",
    "model.dtype",
    "model.kvCacheDtype",
    "model.kvTransferDtype",
    "model.quantization",
    "model.maxModelLength",
    "model.hubToken",
    "image",
    "pool.gpusPerWorker",
    "pool.tensorParallelSize",
    "experts.parallel",
    "experts.redundantExperts",
    "pool.gpuResourceName",
    "pool.cpuThreads",
    "pool.kvBlocks",
    "pool.gpuMemoryUtilization",
    "pool.resources",
    "pool.template",
    "cluster.head",
    "cluster.imagePullPolicy",
    "cluster.imagePullSecrets",
    "cluster.serviceAccountName",
)
AGAIN = "can't be changed: delete the service and create it again"


def refused_changes(old: MultimodalServiceSpec, new: MultimodalServiceSpec) -> list[Problem]:
    """What may not change while the service lives."""
    return [
        Problem(path=f"spec.{path}", wanted=f"{AGAIN} (it was {shown(before)})", found=shown(after))
        for path, before, after in _differences(old, new, FIXED)
    ]


def rolling_changes(old: MultimodalServiceSpec, new: MultimodalServiceSpec) -> list[str]:
    """One warning for every change that replaces workers. No warnings: the change is live."""
    return [
        f"spec.{path}: every worker is replaced, at most {new.rollout.max_surge_workers} ahead of"
        " the old ones; requests are served all the while"
        for path, _, _ in _differences(old, new, ROLLING)
    ]


def rolling_values(spec: MultimodalServiceSpec) -> dict[str, Any]:
    """Path → value of everything a worker is made from."""
    values = spec.model_dump(mode="json", by_alias=True)
    return {path: _at(values, path) for path in ROLLING}


def refused_test_changes(old: LoadTestSpec, new: LoadTestSpec) -> list[Problem]:
    """A LoadTest is one run: nothing but its clean-up may change."""
    kept = ("target", "config", "waitSeconds", "timeoutSeconds", "image", "resources", "template")
    return [
        Problem(
            path=f"spec.{path}",
            wanted="can't be changed, a LoadTest runs once: create another one",
            found=shown(after),
        )
        for path, _, after in _differences(old, new, kept)
    ]


def _differences(
    old: BaseModel, new: BaseModel, paths: tuple[str, ...]
) -> Iterator[tuple[str, Any, Any]]:
    before, after = (item.model_dump(mode="json", by_alias=True) for item in (old, new))
    for path in paths:
        was, now = _at(before, path), _at(after, path)
        if was != now:
            yield path, was, now


def _at(values: Mapping[str, Any], path: str) -> Any:
    found: Any = values
    for step in path.split("."):
        found = found[step]
    return found
