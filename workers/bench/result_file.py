"""This file is about what every committed measurement says of itself: when, where, under what load.

Never a path or a host name: results are read by people elsewhere.
"""

import json
import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any


def conditions(*packages: str) -> dict[str, Any]:
    """Date, machine in words, load average now, and the versions of `packages`."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} shared cores, {platform.machine()}",
        "load_average": [round(load, 1) for load in os.getloadavg()],
        "versions": {name: _version(name) for name in packages},
    }


def write_result(path: Path, report: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=2) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed here"
