"""This file is about the OpenAPI document: made from the same types that parse and answer."""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from epidote_gateway.operations import Operation
from epidote_gateway.responses import ErrorBody

_REF = "#/components/schemas/{name}"
_PARAMETER = re.compile(r"{(\w+)(?::path)?}")


def openapi_document(
    operations: Sequence[Operation], *, title: str, version: str
) -> dict[str, Any]:
    """OpenAPI 3.1."""
    types = [ErrorBody]
    for operation in operations:
        types += [type_ for type_ in (operation.body, operation.answer) if type_ is not None]
    unique = list(dict.fromkeys(types))
    refs, components = msgspec.json.schema_components(unique, ref_template=_REF)
    by_type = dict(zip(unique, refs, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace(":path}", "}")  # a word of the framework's
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"key": []}],
    }


def _operation(operation: Operation, refs: dict[Any, Any]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{operation.method.lower()}{operation.path}").strip("_")
    described: dict[str, Any] = {
        "operationId": name,
        "summary": operation.summary,
        "responses": _responses(operation, refs),
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(refs[operation.body])}
    parameters = [
        {"name": found, "in": "path", "required": True, "schema": {"type": "string"}}
        for found in _PARAMETER.findall(operation.path)
    ]
    if parameters:
        described["parameters"] = parameters
    return described


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _responses(operation: Operation, refs: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"text/plain": {"schema": {"type": "string"}}}
    if operation.answer is not None:
        content = _json(refs[operation.answer])
    if operation.streams:
        content["text/event-stream"] = {}  # events; their data is JSON, or [DONE]
    found: dict[str, Any] = {str(operation.status): {"description": "Success", "content": content}}
    for status in operation.errors:
        schema = refs[ErrorBody]
        if status == 409 and operation.answer is not None:  # rolled back: the outcomes say how
            schema = {"anyOf": [refs[operation.answer], schema]}
        found[str(status)] = {"description": "Error", "content": _json(schema)}
    return found
