"""This file is about a field of a generated object: which field of the resource it comes from.

The API server names the fields of pods; who applied a service knows those of its spec.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from epidote_operator.spec.template_shape import KEYS

# Of a path such as spec.containers[0].resources.limits[nvidia.com/gpu].
_STEP = re.compile(r"\[([^\]]*)\]|([^.\[\]]+)")
# Servers name no field where an object can't be read, but say on which one they stumbled.
_STRICT = re.compile(r'unknown field "([^"]+)"')
_UNREAD = re.compile(r"Go struct field \w+\.([\w.]+) of type")
_UNREAD_BEFORE_1_23 = re.compile(r"v1\.\w+\.(\w+):")
_ALWAYS_THERE = ("", ".metadata", ".spec")  # of a template: what they lack, it did not leave out


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an object was made from. `template` was laid over it, and is found at `template_path`;
    `fields` has where others come from, by the steps that lead to them; `rest` all that is left."""

    rest: str
    template_path: str = ""
    template: Mapping[str, Any] = field(default_factory=dict)
    fields: Mapping[tuple[str, ...], str] = field(default_factory=dict)


def origin_of(path: str, found: Mapping[str, Any], origin: Origin) -> str:
    """Of the field `path` of the object `found`: the resource's field.

    >>> pod = {"spec": {"nodeSelector": {"a": "b"}, "containers": [{"name": "worker"}]}}
    >>> template = {"spec": {"nodeSelector": {"a": "b"}}}
    >>> given = Origin(rest="spec.pool", template_path="spec.pool.template", template=template)
    >>> origin_of("spec.nodeSelector", pod, given)
    'spec.pool.template.spec.nodeSelector'
    >>> origin_of("spec.containers[0].command", pod, given)
    'spec.pool'
    """
    steps = [bracketed or plain for bracketed, plain in _STEP.findall(path)]
    if not steps:
        return origin.rest
    if (inside := _in_template(steps, found, origin.template)) is not None:
        return origin.template_path + inside
    for known, where in origin.fields.items():
        if tuple(steps[: len(known)]) == known:
            return ".".join((where, *steps[len(known) :]))
    return origin.rest


def stumbled_on(message: str) -> str:
    """The field that an unreadable object was left at, list entries without their numbers; "" if
    the server did not say.

    >>> stumbled_on('v1.Pod.Spec: v1.PodSpec.Tolerations: []v1.Toleration: decode slice: …')
    'Spec.Tolerations'
    """
    for pattern in (_STRICT, _UNREAD):
        if match := pattern.search(message):
            return match[1]
    return ".".join(_UNREAD_BEFORE_1_23.findall(message))


def _in_template(steps: Sequence[str], found: Any, template: Any) -> str | None:
    """The path within the template; None: the field was not written there."""
    path, of_list = "", ""
    for step in steps:
        if isinstance(template, Mapping):
            # What the server could not read, it may call by its own language's names.
            name = next((key for key in template if key.casefold() == step.casefold()), step)
            there = found.get(name) if isinstance(found, Mapping) else None
            if name not in template:  # it is missing there, unless something else brought it along
                return None if there or path in _ALWAYS_THERE else f"{path}.{step}"
            path, of_list = f"{path}.{name}", name
            found, template = there, template[name]
        elif isinstance(template, list) and isinstance(found, list):
            if not step.isdigit() or int(step) >= len(found):
                return path
            entry = found[int(step)]
            index = _same(entry, template, KEYS.get(of_list))
            if index is None:
                return None
            path = f"{path}[{index}]"
            found, template = entry, template[index]
        else:
            return path
    return path


def _same(entry: Any, template: Sequence[Any], key: str | None) -> int | None:
    """The entry of a template's list that an object's entry comes from."""
    for index, given in enumerate(template):
        if given == entry:
            return index
        both = isinstance(given, Mapping) and isinstance(entry, Mapping)
        if key is not None and both and given.get(key) == entry.get(key):
            return index
    return None
