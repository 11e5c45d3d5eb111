"""This file is about performance profiles as data files, each with its provenance."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from epidote_planner.performance import (
    DecodeCost,
    EncodeCost,
    PerformanceProfile,
    PrefillCost,
    TransferCost,
)

FOLDER = Path(__file__).parent / "profiles"


def load_profile(name: str, *, startup_s: float | None = None) -> PerformanceProfile:
    """A profile by its name in `profiles/`, or by the path of a JSON file."""
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"no profile {name!r}; there are {', '.join(profile_names())}")
    profile = parse_profile(json.loads(path.read_text(encoding="utf-8")))
    return profile if startup_s is None else replace(profile, startup_s=startup_s)


def profile_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def parse_profile(data: dict[str, Any]) -> PerformanceProfile:
    """A profile from JSON; unknown or missing keys are errors."""
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
