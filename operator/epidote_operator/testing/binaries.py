"""This file is about finding the control plane's programs: given, cached, installed, or built.

People with internet access get current ones by `setup-envtest` (etcd and API server; the
controller manager and scheduler come from a Kubernetes release of the same version). On Debian
they can be built from Debian's own source package by `build_control_plane.sh`, once.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from epidote_core.errors import EpidoteError

VARIABLE = "KUBEBUILDER_ASSETS"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
RECIPE = Path(__file__).with_name("build_control_plane.sh")


class MissingBinaries(EpidoteError):
    """Programs of the control plane are missing; the message says which, and what to do."""


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """Paths of the four programs."""

    etcd: Path
    apiserver: Path
    controller_manager: Path
    scheduler: Path

    def version(self) -> tuple[int, int]:
        """Of the API server: (1, 20)."""
        told = subprocess.run(
            [self.apiserver, "--version"], check=True, capture_output=True, text=True
        ).stdout
        major, minor, *_ = told.split()[-1].lstrip("v").split(".")
        return int(major), int(minor)


def cache_directory(environ: Mapping[str, str] = os.environ) -> Path:
    """Where built programs stay."""
    home = environ.get("EPIDOTE_CACHE") or Path(
        environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "epidote"
    )
    return Path(home, "kubernetes")


def find_binaries(environ: Mapping[str, str] = os.environ) -> Binaries:
    """`KUBEBUILDER_ASSETS`, then the cache, then `PATH`; each program from the first that has it.

    Raises:
        MissingBinaries
    """
    found = {program: _find(program, environ) for program in PROGRAMS}
    missing = [program for program, path in found.items() if path is None]
    if missing:
        raise MissingBinaries(
            f"{', '.join(missing)} not found in {VARIABLE}, {cache_directory(environ)} or PATH; "
            "set the variable, or build them once (Debian, as root, about 4 minutes): "
            "python -m epidote_operator.testing build"
        )
    etcd, apiserver, manager, scheduler = (Path(str(found[program])) for program in PROGRAMS)
    return Binaries(etcd=etcd, apiserver=apiserver, controller_manager=manager, scheduler=scheduler)


def _find(program: str, environ: Mapping[str, str]) -> Path | None:
    for folder in _folders(environ):
        path = folder / program
        if path.is_file() and os.access(path, os.X_OK):
            return path
    return None


def _folders(environ: Mapping[str, str]) -> Iterator[Path]:
    if given := environ.get(VARIABLE):
        yield Path(given)
    yield cache_directory(environ)
    for part in environ.get("PATH", os.defpath).split(os.pathsep):
        if part:
            yield Path(part)


def build(work: Path, environ: Mapping[str, str] = os.environ) -> Path:
    """Build the programs into the cache by the recipe; returns their folder.

    Raises:
        MissingBinaries: not Debian, not root, or a step failed (its output is on stderr).
    """
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise MissingBinaries(
            f"building needs Debian's apt-get as root; set {VARIABLE} to a folder with "
            f"{', '.join(PROGRAMS)} instead"
        )
    out = cache_directory(environ)
    partial = work / "out"
    partial.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(["bash", RECIPE, work, partial], check=False)
    if done.returncode != 0:
        raise MissingBinaries(f"{RECIPE.name} failed with exit code {done.returncode}")
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(partial.iterdir(), key=lambda path: path.is_symlink()):
        target = out / path.name
        target.unlink(missing_ok=True)
        shutil.move(path, target)  # the program before the names that point to it
    return out
