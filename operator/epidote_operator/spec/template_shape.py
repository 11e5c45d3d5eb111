"""This file is about what a pod template must look like to be laid over a generated pod at all.

Whether the result is a pod that can be, the API server knows.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from epidote_operator.spec.invalid import NOTHING, Problem, shown
from epidote_operator.spec.pool import PodTemplate

# Lists that are merged entry by entry, and the field that tells entries apart.
KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}
APPENDED = ("tolerations", "topologySpreadConstraints", "imagePullSecrets")


def shape_problems(path: str, template: PodTemplate) -> Iterator[Problem]:
    """Lists that are none, entries that are no objects or lack what tells them apart."""
    yield from _object(f"{path}.spec", template.spec)


def _object(path: str, value: Mapping[str, Any]) -> Iterator[Problem]:
    for name, item in value.items():
        where = f"{path}.{name}"
        if name in KEYS or name in APPENDED:
            yield from _list(where, item, KEYS.get(name))
        elif isinstance(item, Mapping):
            yield from _object(where, item)


def _list(path: str, value: Any, key: str | None) -> Iterator[Problem]:
    if not isinstance(value, list):
        yield Problem(path=path, wanted="must be a list", found=shown(value))
        return
    for number, entry in enumerate(value):
        where = f"{path}[{number}]"
        if not isinstance(entry, Mapping):
            yield Problem(path=where, wanted="must be an object", found=shown(entry))
            continue
        if key is not None and not isinstance(entry.get(key), str | int):
            found = shown(entry[key]) if key in entry else NOTHING
            yield Problem(path=f"{where}.{key}", wanted="must be given", found=found)
        yield from _object(where, entry)
