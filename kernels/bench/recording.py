"""This file is about what a bench leaves behind whatever happens to it: one file, written anew
after every line, with the words of what failed and the names of what there was no time for.
"""

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch


class DeviceLost(RuntimeError):
    """The device takes no more work from this process: a failure has spoilt its context."""


@dataclass(frozen=True)
class Deadline:
    """Until when a bench may begin something, on the monotonic clock."""

    ends_s: float

    @classmethod
    def after(cls, minutes: float) -> "Deadline":
        return cls(time.monotonic() + 60 * minutes)

    def leaves(self, needs_s: float = 0.0) -> bool:
        return time.monotonic() + needs_s < self.ends_s


@dataclass
class Recording:
    """A result and the file that always has what is known so far."""

    result: dict[str, Any]
    path: Path
    failures: list[str] = field(default_factory=list)

    def keep(self) -> None:
        """Write it all. Nobody ever finds half a file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = self.path.with_name(self.path.name + ".new")
        new.write_text(json.dumps(self.result, indent=1) + "\n")
        new.replace(self.path)

    def line(self, part: str, line: dict[str, Any]) -> None:
        """Add `line` to the list that `part` is."""
        self.result.setdefault(part, []).append(line)
        self.keep()

    def put(self, found: Any, *keys: str) -> None:
        """Set `result[keys[0]][keys[1]]…`."""
        inside = self.result
        for key in keys[:-1]:
            inside = inside.setdefault(key, {})
        inside[keys[-1]] = found
        self.keep()

    def guarded(self, name: str, run: Callable[[], Any], device: str) -> Any:
        """What `run` returns, or {"failed": why}: one failure must not cost the other figures.

        Raises:
            DeviceLost: nothing else can be measured in this process.
        """
        try:
            return run()
        except DeviceLost:
            raise
        except Exception as failed:  # told in the result, and by the exit code
            words = words_of(failed)
            self.failures.append(f"{name}: {words}")
            if is_lost(device):
                self.put(f"{name}: {words}", "device_lost_by")
                raise DeviceLost(words) from failed
            return {"failed": words}


def words_of(failed: Exception) -> str:
    return f"{type(failed).__name__}: {failed}"[:300]


def is_lost(device: str) -> bool:
    """Whether the device refuses even the simplest work, as after an illegal memory access."""
    if not device.startswith("cuda"):
        return False
    try:
        torch.ones(1, device=device).item()
    except RuntimeError:
        return True
    return False


def path_of(result: dict[str, Any], out: Path | None, suffix: str = "") -> Path:
    """`out`, or results/<device>-<date><suffix>.json beside this file."""
    if out is not None:
        return out
    name = re.sub(r"[^a-z0-9]+", "-", f"{result['device']}-{result['date']}{suffix}".lower())
    return Path(__file__).parent / "results" / f"{name}.json"


def write(result: dict[str, Any], out: Path | None, suffix: str = "") -> Path:
    """The file that the result went to."""
    recording = Recording(result, path_of(result, out, suffix))
    recording.keep()
    return recording.path


def parser(description: str) -> argparse.ArgumentParser:
    """Arguments that all benches of this folder share."""
    arguments = argparse.ArgumentParser(description=description)
    arguments.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments.add_argument("--toy", action="store_true", help="tiny sizes: only that it runs")
    arguments.add_argument(
        "--minutes", type=float, default=9.0, help="after which nothing more is begun"
    )
    arguments.add_argument("--out", type=Path, help="the result's file")
    return arguments


def parsed(arguments: argparse.ArgumentParser, given: list[str]) -> argparse.Namespace:
    """Refuses what would run for hours on a CPU and say nothing of a GPU."""
    chosen = arguments.parse_args(given)
    if not chosen.device.startswith("cuda") and not chosen.toy:
        arguments.error(
            f"--device {chosen.device} measures nothing of use: add --toy, or take bench_ops.py"
        )
    if chosen.device.startswith("cuda") and not torch.cuda.is_available():
        arguments.error(f"--device {chosen.device}: torch finds no CUDA device")
    return chosen


def number_type(device: str) -> torch.dtype:
    return torch.bfloat16 if device.startswith("cuda") else torch.float32
