"""This file is about telling what is wrong with a field: where, what was wanted, what was found.

pydantic finds the problems; its own words are for programmers.
"""

from collections.abc import Mapping
from typing import Any

from epidote_loadgen.config.yaml_source import Path_, YamlSource

_SECRET = {"headers", "proxy_url"}  # values of these are never shown
_WANTED = {
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "finite_number": "a finite number",
    "too_short": "at least {min_length} of them",
    "too_long": "at most {max_length} of them",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "int_from_float": "a whole number",
    "tuple_type": "a list",
    "path_type": "a path",
    "none_required": "nothing",
    "string_pattern_mismatch": "the name of a header",
}
_TYPES = {  # by the beginning of an error's name
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "a text",
    "list": "a list",
    "dict": "a mapping",
    "model": "a mapping",
    "mapping": "a mapping",
}


def problem(entry: Mapping[str, Any], source: YamlSource) -> str:
    """One line for one of pydantic's errors."""
    path = _in_file(entry["loc"], source.values)
    message = _message(entry, is_secret=bool(set(path) & _SECRET))
    dotted = ""
    for part in path:
        dotted += f"[{part}]" if isinstance(part, int) else f".{part}" if dotted else str(part)
    where = source.where(path)
    return f"{where}: {dotted}: {message}" if dotted else f"{where}: {message}"


def _message(entry: Mapping[str, Any], *, is_secret: bool) -> str:
    kind, context = str(entry["type"]), entry.get("ctx") or {}
    match kind:
        case "missing":
            return "is missing"
        case "extra_forbidden":
            return "no such field"
        case "union_tag_not_found":
            return "kind: is missing"
        case "union_tag_invalid":
            return f"kind: want {context['expected_tags']}, found {context['tag']!r}"
    wanted = _WANTED.get(kind) or _TYPES.get(kind.partition("_")[0])
    if wanted is None:  # our own validators say both
        return str(entry["msg"]).removeprefix("Value error, ")
    found = "" if is_secret else f", found {_shown(entry.get('input'))}"
    return f"want {wanted.format(**context)}{found}"


def _shown(value: Any) -> str:
    """
    >>> _shown("soon"), _shown([1, 2]), _shown(None)
    ("'soon'", 'a list of 2', 'nothing')
    """
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value}"[:60]
        case str():
            return repr(value[:60])
        case list() | tuple():
            return f"a list of {len(value)}"
        case dict():
            return "a mapping" if value else "an empty mapping"
    return f"a {type(value).__name__}"


def _in_file(loc: tuple[str | int, ...], values: Any) -> Path_:
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
