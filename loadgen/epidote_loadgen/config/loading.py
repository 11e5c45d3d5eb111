"""This file is about loading a run file: YAML, overrides, checks, and problems told by field."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.run_file import RunFile
from epidote_loadgen.config.yaml_source import YamlSource, read_yaml

MOST_PROBLEMS = 20
_PLAINER = {
    "Extra inputs are not permitted": "no such field",
    "Field required": "is missing",
}
_SECRET = ("headers", "proxy_url")  # values of these are never shown


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> RunFile:
    """The run file at `path`; `overrides` are values by dotted path ("target.url").

    Raises:
        InvalidConfig: one line a problem, each with file, line, field, what was wanted and found.
    """
    source = read_yaml(path)
    values = source.values
    for dotted, value in (overrides or {}).items():
        values = _with(values, dotted.split("."), value)
    return check(YamlSource(name=source.name, values=values, lines=source.lines))


def check(source: YamlSource) -> RunFile:
    """The checked file. Raises as `load` does."""
    try:
        return RunFile.model_validate(source.values)
    except ValidationError as error:
        problems = [_problem(dict(entry), source) for entry in error.errors(include_url=False)]
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + ([f"… and {more} more"] if more > 0 else [])
        raise InvalidConfig("\n".join(shown)) from None  # the original holds secrets


def _with(values: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    inner = values.get(keys[0])
    if len(keys) > 1:
        value = _with(inner if isinstance(inner, dict) else {}, keys[1:], value)
    return {**values, keys[0]: value}


def _problem(entry: dict[str, Any], source: YamlSource) -> str:
    path = _in_file(entry["loc"], source.values)
    message = str(entry["msg"]).removeprefix("Value error, ")
    message = _PLAINER.get(message, message.replace("Input should", "should"))
    if entry["type"] == "union_tag_invalid":
        kinds, kind = entry["ctx"]["expected_tags"], entry["ctx"]["tag"]
        message = f"kind: want {kinds}, found {kind!r}"
    elif entry["type"] == "union_tag_not_found":
        message = "kind: is missing"
    found = entry.get("input")
    is_plain = found is None or isinstance(found, (str, int, float))
    says_found = any(word in message for word in ("found", "got", "missing", "no such", ": "))
    if is_plain and not says_found and not set(path) & set(_SECRET):
        message += f", got {str(found)[:60]!r}"
    dotted = ""
    for part in path:
        dotted += f"[{part}]" if isinstance(part, int) else f".{part}" if dotted else str(part)
    where = source.where(path)
    return f"{where}: {dotted}: {message}" if dotted else f"{where}: {message}"


def _in_file(loc: tuple[str | int, ...], values: Any) -> tuple[str | int, ...]:
    """The path without the tags that a union adds; a missing field stays as the last part."""
    path: list[str | int] = []
    for index, part in enumerate(loc):
        inside = _inside(values, part)
        is_missing_field = (
            index == len(loc) - 1
            and isinstance(values, dict)
            and part != values.get("kind", "open")
        )
        if inside is not _NOTHING:
            values = inside
        elif not is_missing_field:
            continue
        path.append(part)
    return tuple(path)


_NOTHING = object()


def _inside(values: Any, part: str | int) -> Any:
    """The value at `part`, or `_NOTHING`."""
    if isinstance(values, dict):
        return values.get(part, _NOTHING)
    if isinstance(values, list) and isinstance(part, int) and part < len(values):
        return values[part]
    return _NOTHING
