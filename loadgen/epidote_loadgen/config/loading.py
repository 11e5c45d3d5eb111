"""This file is about loading a run file: YAML, what flags change in it, and the checks."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from epidote_loadgen.config.invalid import InvalidConfig
from epidote_loadgen.config.problems import problem
from epidote_loadgen.config.run_file import RunFile
from epidote_loadgen.config.yaml_source import YamlSource, read_yaml

MOST_PROBLEMS = 20


def load(path: Path, overrides: Mapping[str, Any] | None = None) -> RunFile:
    """The run file at `path`; `overrides` are values by dotted path ("target.url").

    Raises:
        InvalidConfig: one line a problem, each with file, line, field, what was wanted and found.
    """
    return check(changed(read_yaml(path), overrides or {}))


def changed(source: YamlSource, overrides: Mapping[str, Any]) -> YamlSource:
    """The source with values set by dotted path; what was no mapping on the way becomes one."""
    values = source.values
    for dotted, value in overrides.items():
        values = _with(values, dotted.split("."), value)
    return replace(source, values=values)


def check(source: YamlSource) -> RunFile:
    """The checked file. Raises as `load` does."""
    try:
        return RunFile.model_validate(source.values)
    except ValidationError as error:
        problems = [problem(dict(entry), source) for entry in error.errors(include_url=False)]
        more = len(problems) - MOST_PROBLEMS
        shown = problems[:MOST_PROBLEMS] + ([f"… and {more} more"] if more > 0 else [])
        raise InvalidConfig("\n".join(shown)) from None  # the original holds secrets


def _with(values: dict[str, Any], keys: list[str], value: Any) -> dict[str, Any]:
    inner = values.get(keys[0])
    if len(keys) > 1:
        value = _with(inner if isinstance(inner, dict) else {}, keys[1:], value)
    return {**values, keys[0]: value}
