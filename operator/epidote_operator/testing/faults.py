"""This file is about faults: a valid spec is spoiled in one known way, in one known field."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Spec = dict[str, Any]
Spoil = Callable[[Spec], None]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One way to spoil a spec; `path` is the field to be named.

    `schema`: the API server's schema finds it without a webhook, too.
    """

    name: str
    path: str
    spoil: Spoil
    schema: bool = False

    def is_named_in(self, message: str) -> bool:
        """Whether a refusal names the field. The API server's own schema names a list's entry by
        its key, and a set's by its value."""
        if self.schema:
            return self.path.partition("[")[0] in message
        return f"{self.path}: " in message


def spoiled(spec: Spec, fault: Fault) -> Spec:
    """A copy of `spec` with that fault."""
    found = copy.deepcopy(spec)
    fault.spoil(found)
    return found


def set_field(path: str, value: Any) -> Spoil:
    def spoil(spec: Spec) -> None:
        *parents, last = path.split(".")
        for name in parents:
            spec = spec.setdefault(name, {})
        spec[last] = value

    return spoil


def drop_field(path: str) -> Spoil:
    def spoil(spec: Spec) -> None:
        *parents, last = path.split(".")
        for name in parents:
            spec = spec[name]
        del spec[last]

    return spoil


def wrong(path: str, value: Any, *, schema: bool = False, at: str | None = None) -> Fault:
    """`path` set to `value`; `at`: the field to be named, if it is another one."""
    return Fault(
        name=f"{path}={value!r:.40}",
        path=f"spec.{at or path}",
        spoil=set_field(path, value),
        schema=schema,
    )


def all_of(*steps: Spoil) -> Spoil:
    """One after the other."""

    def spoil(spec: Spec) -> None:
        for step in steps:
            step(spec)

    return spoil
