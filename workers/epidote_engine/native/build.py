"""This file is about compiling `decode_step.c` for the processor that runs it, once per machine.

The library lies in the user's cache directory under a name that says everything it was made from,
so that nobody loads what was compiled from another source or for another processor.
"""

import ctypes
import fcntl
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from epidote_engine.user_cache import cache_directory

log = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("decode_step.c")
_COMPILERS = ("cc", "gcc", "clang")
_FLAGS = ("-O3", "-std=gnu11", "-fno-math-errno", "-fPIC", "-shared", "-w")
_NATIVE: tuple[tuple[str, ...], ...] = (
    ("-march=native",),
    ("-mcpu=native",),  # some compilers' word for it on Arm
    (),
)
_DEADLINE_S = 120.0  # it takes a second


@cache
def library() -> ctypes.CDLL | None:
    """The compiled step; None, with a line in the log, where it can't be had."""
    compiler = os.environ.get("CC") or next(filter(shutil.which, _COMPILERS), None)
    if compiler is None:
        log.info("no C compiler (%s): decode steps are slower", ", ".join(_COMPILERS))
        return None
    try:
        return _load(shlex.split(compiler), cache_directory())
    except (OSError, subprocess.SubprocessError) as error:
        log.warning("no compiled decode step, hence slower ones: %s", _said(error))
        return None


def _load(compiler: list[str], directory: Path | None) -> ctypes.CDLL:
    """From `directory` if it is there, else compiled and, if possible, kept there."""
    name = f"decode-step-{_fingerprint(compiler)}.so"
    try:
        if directory is None:
            raise FileNotFoundError("the user has no home, and XDG_CACHE_HOME is not set")
        kept = directory / name
        directory.mkdir(parents=True, exist_ok=True)
        with kept.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of workers that start together one compiles
            if not kept.is_file():
                made = kept.with_suffix(".unfinished")
                _compile(compiler, made)
                made.replace(kept)
        return ctypes.CDLL(str(kept))
    except OSError as error:  # a pod's root may be read-only
        log.info("compiled decode step not kept: %s", error)
    with tempfile.TemporaryDirectory(prefix="epidote-") as apart:
        made = Path(apart) / name
        _compile(compiler, made)
        return ctypes.CDLL(str(made))


def _compile(compiler: list[str], target: Path) -> None:
    for native in _NATIVE:
        done = subprocess.run(
            [*compiler, *_FLAGS, *native, "-o", target, _SOURCE, "-lm"],
            capture_output=True, text=True, timeout=_DEADLINE_S, check=native == _NATIVE[-1],
        )  # fmt: skip
        if done.returncode == 0:
            return


def _fingerprint(compiler: list[str]) -> str:
    asked = [*compiler, "--version"]
    version = subprocess.run(asked, capture_output=True, timeout=_DEADLINE_S, check=True).stdout
    made_of = (_SOURCE.read_bytes(), version, repr((compiler, _FLAGS, _processor())).encode())
    return hashlib.sha256(b"\0".join(made_of)).hexdigest()[:16]


def _processor() -> str:
    """What `native` means here."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    known = (line for line in lines if line.startswith(("flags", "Features", "model name")))
    return "\n".join(sorted(set(known)))


def _said(error: Exception) -> str:
    """The first line of what the compiler or the system said."""
    text = str(getattr(error, "stderr", None) or error).strip()
    return text.partition("\n")[0] or type(error).__name__
