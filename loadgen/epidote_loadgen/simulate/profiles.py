"""This file is about performance profiles as data files, each with its provenance."""

import json
from collections.abc import Iterator
from dataclasses import replace
from math import inf
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
STAGES = ("encode", "prefill", "decode", "transfer")
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


def parse_profile(data: dict[str, Any]) -> PerformanceProfile:
    """A profile from JSON; unknown or missing keys and values that are no numbers are errors."""
    if not isinstance(data, dict):
        raise ValueError(f"not a performance profile: want an object, found {data!r:.60}")
    missing = [key for key in REQUIRED if key not in data]
    if missing:
        raise ValueError(f"not a performance profile: no {', '.join(missing)}")
    for name, value in _numbers(data):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < inf:
            raise ValueError(
                f"not a performance profile: {name}: want a number >= 0, got {value!r}"
            )
    fields = dict(data)
    try:
        return PerformanceProfile(
            encode=EncodeCost(**fields.pop("encode")),
            prefill=PrefillCost(**fields.pop("prefill")),
            decode=DecodeCost(**fields.pop("decode")),
            transfer=TransferCost(**fields.pop("transfer", {})),
            **fields,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a performance profile: {error}") from error


def _numbers(data: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every field but the two texts, stages by their dotted names."""
    for key, value in data.items():
        if key in STAGES:
            if not isinstance(value, dict):
                raise ValueError(f"not a performance profile: {key}: want an object")
            yield from ((f"{key}.{name}", part) for name, part in value.items())
        elif key not in ("name", "provenance"):
            yield key, value
