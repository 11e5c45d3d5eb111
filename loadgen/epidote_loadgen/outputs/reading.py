"""This file is about reading a run's JSON document back, and telling what is wrong with it."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from epidote_loadgen.outputs.document import SCHEMA, Document
from epidote_loadgen.verdict.verdict import ExitCode

# What every document has, and of which type; enough to tell a damaged one from a whole one.
_SECTIONS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "run": {
        "config_digest": str,
        "seed": int,
        "started_at": str,
        "duration_s": (int, float),
        "interrupted": bool,
        "void_reason": str,
    },
    "verdict": {"outcome": str, "exit_code": int, "reason": str, "objectives": list},
    "summary": {"num_requests": int, "num_ok": int, "by_status": dict, "ttft": dict},
    "client": {"num_processes": int},
    "requests": {"index": list, "status": list, "intended_send_s": list, "slo_class": list},
}
_NAMES = {str: "a text", int: "a whole number", bool: "true or false", list: "a list"}


class UnreadableRun(ValueError):
    """A file that is no document of a run."""


def read_document(path: Path) -> Document:
    """A document written before.

    Raises:
        UnreadableRun: no such file, no JSON, another schema, or parts of it are missing; the
            message names the file and the field.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UnreadableRun(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UnreadableRun(f"{path}: want the JSON of a run, found no text in UTF-8") from error
    except json.JSONDecodeError as error:
        raise UnreadableRun(
            f"{path}:{error.lineno}: want the JSON of a run, found none, or one that is damaged "
            f"or cut off at character {error.pos}"
        ) from error
    except RecursionError as error:
        raise UnreadableRun(
            f"{path}: want the JSON of a run, found one nested too deeply"
        ) from error
    found = value.get("schema") if isinstance(value, dict) else None
    if found != SCHEMA:
        raise UnreadableRun(
            f"{path}: schema: want {SCHEMA!r} (what `run --json` writes), found {found!r}"
        )
    for problem in _problems(value):
        raise UnreadableRun(f"{path}: damaged: {problem}")
    return dict(value)


@contextlib.contextmanager
def told_as_damaged(path: Path) -> Iterator[None]:
    """Whatever is odd deeper inside a document is told by its file too, not as a traceback."""
    try:
        yield
    except (KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise UnreadableRun(
            f"{path}: damaged: something in it is missing or of another type "
            f"({type(error).__name__}: {error})"
        ) from error


def _problems(value: dict[str, Any]) -> Iterator[str]:
    for section, fields in _SECTIONS.items():
        inside = value.get(section)
        if not isinstance(inside, dict):
            yield f"{section}: want a mapping, found {_shown(value, section)}"
            continue
        for name, kind in fields.items():
            if not isinstance(inside.get(name), kind):
                wanted = _NAMES.get(kind, "a mapping") if isinstance(kind, type) else "a number"
                yield f"{section}.{name}: want {wanted}, found {_shown(inside, name)}"
    code = value["verdict"]["exit_code"]
    if code not in iter(ExitCode):
        yield f"verdict.exit_code: want {min(ExitCode):d} to {max(ExitCode):d}, found {code}"
    columns = value["requests"]
    num = len(columns["index"])
    for name, column in columns.items():
        if not isinstance(column, list) or len(column) != num:
            found = len(column) if isinstance(column, list) else _shown(columns, name)
            yield f"requests.{name}: want {num} values, as many as requests, found {found}"


def _shown(inside: dict[str, Any], name: str) -> str:
    return f"{json.dumps(inside[name])[:40]}" if name in inside else "nothing"
