"""This file is about performance profiles as data files, each with its provenance."""

import json
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any

from epidote_planner.performance import (
    DecodeCost,
    EncodeCost,
    PerformanceProfile,
    PrefillCost,
    TransferCost,
)

REQUIRED = ("name", "provenance", "encode", "prefill", "decode")
STAGES: dict[str, Any] = {
    "encode": EncodeCost,
    "prefill": PrefillCost,
    "decode": DecodeCost,
    "transfer": TransferCost,
}
FOLDER = Path(__file__).parent / "profiles"


def load_profile(name: str, *, startup_s: float | None = None) -> PerformanceProfile:
    """A profile by its name in `profiles/`, or by the path of a JSON file."""
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(
            f"--profile: no profile {name!r}; there are {', '.join(profile_names())}, "
            "or give the path of a JSON file"
        )
    try:
        profile = parse_profile(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:  # JSON's and Unicode's errors are ValueErrors, too
        raise ValueError(f"--profile {name}: {error}") from error
    return profile if startup_s is None else replace(profile, startup_s=startup_s)


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def parse_profile(data: object) -> PerformanceProfile:
    """A profile from JSON.

    Raises:
        ValueError: a field is missing, unknown or cannot be; names it by its dotted path.
    """
    try:
        return _parsed(data)
    except ValueError as error:
        raise ValueError(f"not a performance profile: {error}") from error


def _parsed(data: object) -> PerformanceProfile:
    if not isinstance(data, dict):
        raise ValueError(f"want an object, found {data!r:.60}")
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    values = dict(data)
    stages: dict[str, Any] = {
        name: _stage(name, values.pop(name)) for name in STAGES if name in values
    }
    _refuse_unknown("", values, PerformanceProfile)
    return PerformanceProfile(**stages, **values)


def _stage(name: str, data: object) -> object:
    """One stage's cost; the class checks its values."""
    if not isinstance(data, dict):
        raise ValueError(f"{name}: want an object, got {data!r:.60}")
    kind = STAGES[name]
    _refuse_unknown(f"{name}.", data, kind)
    for item in fields(kind):
        needed = item.default is MISSING and item.default_factory is MISSING
        if needed and item.name not in data:
            raise ValueError(f"{name}.{item.name}: want a number, got nothing")
    return kind(**data)


def _refuse_unknown(path: str, data: dict[str, Any], kind: type) -> None:
    unknown = sorted(set(data) - {item.name for item in fields(kind)})
    if unknown:
        raise ValueError(f"{path}{unknown[0]}: no such field")
