"""This file is about reading resources: their fields first, then the rules that join them.

Every problem is reported at once, by the path that `kubectl explain` uses.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from epidote_operator.spec.cache_policy import CachePolicySpec
from epidote_operator.spec.invalid import NOTHING, InvalidSpec, Problem, plain, shown
from epidote_operator.spec.load_test import LoadTestSpec
from epidote_operator.spec.load_test_rules import load_test_problems
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.object_name import name_problems
from epidote_operator.spec.service_rules import provider_problems, service_problems

M = TypeVar("M", bound=BaseModel)
ROOT = "spec"


def parse_service(
    spec: Mapping[str, Any], *, name: str | None = None, kuberay: bool = True
) -> MultimodalServiceSpec:
    """A MultimodalService's spec that can be honoured. `name`: of the resource, if it counts.

    `kuberay`: whether this operator may write RayClusters.

    Raises:
        InvalidSpec: with every problem found.
    """
    unnamed = [] if name is None else name_problems(name)

    def problems(found: MultimodalServiceSpec) -> list[Problem]:
        return [*service_problems(found), *provider_problems(found, kuberay=kuberay)]

    try:
        found = _checked(_read(MultimodalServiceSpec, spec), problems)
    except InvalidSpec as error:
        raise InvalidSpec((*unnamed, *error.problems)) from error
    if unnamed:
        raise InvalidSpec(unnamed)
    return found


def parse_cache_policy(spec: Mapping[str, Any]) -> CachePolicySpec:
    """A CachePolicy's spec. Raises `InvalidSpec` as `parse_service` does."""
    return _read(CachePolicySpec, spec)


def parse_load_test(spec: Mapping[str, Any]) -> LoadTestSpec:
    """A LoadTest's spec. Raises `InvalidSpec` as `parse_service` does."""
    return _checked(_read(LoadTestSpec, spec), load_test_problems)


def _checked(spec: M, rules: Any) -> M:
    if problems := rules(spec):
        raise InvalidSpec(problems)
    return spec


def _read(model: type[M], spec: Mapping[str, Any]) -> M:
    try:
        # JSON, because strict reading of JSON takes lists and names of enums, and no "5" for 5.
        return model.model_validate_json(json.dumps(dict(spec)), strict=True)
    except ValidationError as error:
        raise InvalidSpec(_problem(item) for item in error.errors(include_url=False)) from error


def _problem(error: ErrorDetails) -> Problem:
    path = ROOT
    for step in error["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    found = shown(error["input"])
    context = error.get("ctx", {})
    match error["type"]:
        case "missing":
            wanted, found = "must be given", NOTHING
        case "extra_forbidden":
            return Problem(
                path=path, wanted="must be left out, there is no such field", found=found
            )
        case "enum":
            wanted = f"must be {context['expected']}"
        case "greater_than_equal":
            wanted = f"must be at least {plain(context['ge'])}"
        case "less_than_equal":
            wanted = f"must be at most {plain(context['le'])}"
        case "greater_than":
            wanted = f"must be greater than {plain(context['gt'])}"
        case "string_pattern_mismatch":
            wanted = f"must match {context['pattern']}"
        case "string_too_short" | "string_too_long" | "too_short" | "too_long":
            wanted, found = _length(context, error["input"])
        case "value_error":  # a rule inside a model: "path: wanted, got found"
            return _told(path, error["msg"].removeprefix("Value error, "), found)
        case kind:
            wanted = _TYPES.get(kind, error["msg"])
    return Problem(path=path, wanted=wanted, found=found)


_TYPES = {
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "string_type": "must be a string",
    "bool_type": "must be true or false",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _length(context: Mapping[str, Any], value: Any) -> tuple[str, str]:
    unit = "characters" if isinstance(value, str) else "entries"
    if "min_length" in context:
        return f"must have at least {context['min_length']} {unit}", f"{len(value)}"
    return f"must have at most {context['max_length']} {unit}", f"{len(value)}"


def _told(path: str, message: str, found: str) -> Problem:
    field, colon, rest = message.partition(": ")
    if not colon or " " in field:
        return Problem(path=path, wanted=message, found=found)
    wanted, _, got = rest.rpartition(", got ")
    return Problem(path=f"{path}.{field}", wanted=wanted or rest, found=got or found)
