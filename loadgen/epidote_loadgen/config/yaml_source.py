"""This file is about a YAML text as plain values, and on which line each field stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from epidote_loadgen.config.invalid import InvalidConfig

Path_ = tuple[str | int, ...]


@dataclass(frozen=True, kw_only=True)
class YamlSource:
    """The values of a file, and the line (from 1) of each path into them.

    `flags` names the flag that gave what stands at a dotted path instead.
    """

    name: str
    values: dict[str, Any]
    lines: dict[Path_, int] = field(default_factory=dict)
    flags: Mapping[str, str] = field(default_factory=dict)

    def where(self, path: Path_) -> str:
        """The flag; else `file:line` of the deepest part of `path` that the file has."""
        for length in range(len(path), 0, -1):
            flag = self.flags.get(".".join(map(str, path[:length])))
            if flag:
                return flag
        if not self.lines:
            return self.name
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name}:{self.lines.get(path, 1)}"


def read_yaml(path: Path) -> YamlSource:
    """The file's values.

    Raises:
        InvalidConfig: no such file, no YAML, a key twice, or no mapping at the top.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InvalidConfig(f"{path}: can't be read: want text in UTF-8") from error
    return parse_yaml(text, name=str(path))


def parse_yaml(text: str, *, name: str) -> YamlSource:
    """As `read_yaml`, from a text."""
    lines: dict[Path_, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        if node is not None:
            _walk(node, (), lines, name)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark is not None else 1
        problem = getattr(error, "problem", None) or str(error)
        raise InvalidConfig(f"{name}:{line}: no YAML: {problem}") from error
    except RecursionError as error:
        raise InvalidConfig(f"{name}: nested too deeply") from error
    if not isinstance(values, dict):
        found = type(values).__name__ if values is not None else "nothing"
        raise InvalidConfig(f"{name}:1: want a mapping with target, arrivals …; found {found}")
    return YamlSource(name=name, values=values, lines=lines)


def _walk(node: yaml.Node, path: Path_, lines: dict[Path_, int], name: str) -> None:
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if key.value in seen and key.value != "<<":
                raise InvalidConfig(f"{name}:{line}: {key.value!r} is given twice")
            seen.add(key.value)
            lines[(*path, key.value)] = line
            _walk(value, (*path, key.value), lines, name)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _walk(value, (*path, index), lines, name)
