"""The kernels against their twins without a GPU: a process of its own runs `interpreted/`."""

import os
import pathlib
import subprocess
import sys

import numpy
import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")

FOLDER = pathlib.Path(__file__).with_name("interpreted")


def run_folder(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments, str(FOLDER)],
        cwd=FOLDER.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "EPIDOTE_KERNELS": "triton"},
        capture_output=True,
        text=True,
        check=False,
        timeout=840,
    )


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(
    triton.__version__.startswith("3.6.") and numpy.lib.NumpyVersion(numpy.__version__) >= "2.4.0",
    reason="the interpreter of triton 3.6 cannot run loops with numpy >= 2.4",
)
def test_every_kernel_equals_its_twin_in_the_interpreter() -> None:
    done = run_folder("-x")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout, done.stdout
