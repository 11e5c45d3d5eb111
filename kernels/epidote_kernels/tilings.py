"""This file is about how kernels cut their work on a device: a small table per device, else a rule.

`tuning/<device>.json` holds the tilings of one device, by kernel and key; a key names what the
choice depends on ("kv16 dim=128"). `python -m epidote_kernels.tune` measures and writes it. Where
a device has no table, or its table no such key, the kernel's own rule decides, from sizes alone.

    {"device": "NVIDIA H200", "measured": false, "note": "…",
     "tilings": {"paged_decode": {"kv16 dim=128": {"BLOCK_TOKENS": 64, "warps": 4, "stages": 3}}}}
"""

import functools
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

FOLDER = pathlib.Path(__file__).with_name("tuning")
FOLDER_VARIABLE = "EPIDOTE_TUNING_FOLDER"  # tables of one's own, before the package's


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Tile sizes by the names of the kernel's constants, and how a program runs.

    num_stages  depth of software pipelining: tiles of the inner loop in flight
    """

    sizes: Mapping[str, int]
    num_warps: int
    num_stages: int

    def as_json(self) -> dict[str, int]:
        """The entry of a table; `from_json` reads it back."""
        return {**self.sizes, "warps": self.num_warps, "stages": self.num_stages}

    @classmethod
    def from_json(cls, entry: Mapping[str, int]) -> "Tiling":
        """An entry of a table.

        Raises:
            ValueError: no "warps" or "stages", or a number that is not a whole one above 0.
        """
        for name in ("warps", "stages", *entry):
            value = entry.get(name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name}: must be a whole number >= 1, got {value!r}")
        sizes = {name: n for name, n in entry.items() if name not in ("warps", "stages")}
        return cls(sizes=sizes, num_warps=entry["warps"], num_stages=entry["stages"])


Table = dict[str, dict[str, Tiling]]  # by kernel, then by key


def file_name(device_name: str) -> str:
    """The table of a device, by the name its driver gives.

    >>> file_name("NVIDIA H200")
    'nvidia-h200.json'
    """
    return "-".join(device_name.lower().split()) + ".json"


def read_table(path: pathlib.Path) -> Table:
    """The tilings of a file.

    Raises:
        ValueError: naming the file and the entry that is not one.
    """
    try:
        kernels: dict[str, dict[str, Any]] = json.loads(path.read_text())["tilings"]
        return {
            kernel: {key: Tiling.from_json(entry) for key, entry in entries.items()}
            for kernel, entries in kernels.items()
        }
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path}: is no table of tilings: {error}") from error


def write_table(path: pathlib.Path, table: Table, about: Mapping[str, Any]) -> None:
    """Write `table` to `path`; `about` says what was measured where and when."""
    kernels = {
        kernel: {key: tiling.as_json() for key, tiling in sorted(entries.items())}
        for kernel, entries in sorted(table.items())
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "tilings": kernels}, indent=1) + "\n")


@functools.cache
def table_of(device_name: str) -> Table:
    """The tilings known for a device; empty for an unknown one.

    Raises:
        ValueError: the file is damaged.
    """
    own = os.environ.get(FOLDER_VARIABLE)
    for folder in (pathlib.Path(own) if own else None, FOLDER):
        if folder is not None and (folder / file_name(device_name)).is_file():
            return read_table(folder / file_name(device_name))
    return {}


@functools.cache
def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def tiling_for(kernel: str, key: str, default: Tiling, device: torch.device) -> Tiling:
    """What the device's table says of `key`, or `default`. Costs a look-up in two dictionaries."""
    return table_of(_name_of(device)).get(kernel, {}).get(key, default)


def known_tilings(kernel: str) -> Iterator[tuple[str, Tiling]]:
    """(key, tiling) of every committed table, for the ahead-of-time check."""
    for path in sorted(FOLDER.glob("*.json")):
        yield from read_table(path).get(kernel, {}).items()
