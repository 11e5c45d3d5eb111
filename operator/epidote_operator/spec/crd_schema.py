"""This file is about turning a pydantic model into the structural schema that a CRD needs.

Structural: no references, no `null`, a type at every level, unknown fields pruned by the server
instead of forbidden by `additionalProperties`. See "Specifying a structural schema" in the
Kubernetes documentation of CustomResourceDefinitions.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

INT32_MAX = 2**31 - 1
_DROPPED = ("title", "$defs", "deprecated")
_PRESERVE = "x-kubernetes-preserve-unknown-fields"


def structural(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of `model` as `openAPIV3Schema` wants it, descriptions and defaults included.

    A default for an object is written as `{}` wherever its fields have defaults of their own: the
    server fills them in, and one place says each of them.
    """
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def _convert(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    merged = _without_null(_resolved(schema, defs), defs)
    found: dict[str, Any] = {}
    if "description" in merged:
        found["description"] = " ".join(merged["description"].split())
    for key, value in merged.items():
        match key:
            case "description" | "default":
                pass
            case "properties":
                found[key] = {name: _convert(item, defs) for name, item in value.items()}
            case "items":
                found[key] = _convert(value, defs)
            case "additionalProperties":
                if isinstance(value, dict):
                    found[key] = _convert(value, defs)
            case "exclusiveMinimum":
                found |= {"minimum": value, "exclusiveMinimum": True}
            case "exclusiveMaximum":
                found |= {"maximum": value, "exclusiveMaximum": True}
            case _ if key not in _DROPPED:
                found[key] = value
    if found.get(_PRESERVE):
        found.pop("additionalProperties", None)
    return found | _format(found) | _default(merged, found)


def _resolved(schema: Mapping[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """The schema with its reference replaced; what stands beside the reference wins."""
    if "$ref" not in schema:
        return dict(schema)
    target = defs[schema["$ref"].removeprefix("#/$defs/")]
    return _resolved(target, defs) | {key: schema[key] for key in schema if key != "$ref"}


def _without_null(schema: dict[str, Any], defs: Mapping[str, Any]) -> dict[str, Any]:
    """An optional field is one that may be left out, not one that may be null."""
    if "anyOf" not in schema:
        return schema
    options = [item for item in schema["anyOf"] if item.get("type") != "null"]
    if len(options) != 1:
        raise ValueError(f"a structural schema has one type for each field, got {options}")
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return _resolved(options[0], defs) | rest


def _format(schema: Mapping[str, Any]) -> dict[str, str]:
    if schema.get("type") == "integer":
        small = schema.get("maximum", INT32_MAX + 1) <= INT32_MAX
        return {"format": "int32" if small else "int64"}
    return {"format": "double"} if schema.get("type") == "number" else {}


def _default(schema: Mapping[str, Any], converted: Mapping[str, Any]) -> dict[str, Any]:
    """The default, if it says anything: absent, empty text and empty lists are the same to us."""
    if schema.get("type") == "object":
        inner = converted.get("properties", {}).values()
        fills = any("default" in item for item in inner)
        return {"default": {}} if fills and schema.get("default") is not None else {}
    value = schema.get("default")
    return {} if value is None or value in ("", []) else {"default": value}
