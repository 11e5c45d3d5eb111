"""This file is about laying a user's pod template over a generated pod.

Objects are merged field by field, lists of named things (containers, volumes, environment) entry
by entry, everything else is replaced: the rule of strategic merge patches, without their
directives.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from epidote_operator.spec.pool import PodTemplate
from epidote_operator.spec.template_shape import APPENDED, KEYS


def with_template(pod: Mapping[str, Any], template: PodTemplate) -> dict[str, Any]:
    """`pod` (metadata and spec) with the template over it. Our own labels stay as they are."""
    found: dict[str, Any] = merged(pod, {"spec": template.spec})
    for field in ("labels", "annotations"):
        given = template.metadata.get(field, {})
        ours = pod["metadata"].get(field, {})
        if given or ours:
            found["metadata"] = {**found["metadata"], field: {**given, **ours}}
    return found


def merged(base: Any, over: Any, key: str = "") -> Any:
    """`over` laid on `base`. Neither is changed.

    >>> merged({"env": [{"name": "A", "value": "1"}]}, {"env": [{"name": "B", "value": "2"}]})
    {'env': [{'name': 'A', 'value': '1'}, {'name': 'B', 'value': '2'}]}
    """
    match base, over:
        case Mapping(), Mapping():
            found = {name: base[name] for name in base}
            for name, value in over.items():
                found[name] = merged(base[name], value, name) if name in base else value
            return found
        case list(), list() if key in KEYS:
            return _by_key(base, over, KEYS[key])
        case list(), list() if key in APPENDED:
            return [*base, *(item for item in over if item not in base)]
        case _:
            return over


def _by_key(base: Sequence[Any], over: Sequence[Any], key: str) -> list[Any]:
    left = {item.get(key): item for item in over}
    found = [merged(item, left.pop(item[key])) if item.get(key) in left else item for item in base]
    return [*found, *left.values()]
