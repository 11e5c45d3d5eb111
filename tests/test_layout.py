"""The component folders must stay source roots, never packages (see README, 'Layout')."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
COMPONENTS = ("operator", "workers", "kernels", "loadgen")


@pytest.mark.parametrize("folder", COMPONENTS)
def test_component_folder_is_not_a_package(folder: str) -> None:
    assert not (ROOT / folder / "__init__.py").exists()
    assert not (ROOT / f"{folder}.py").exists()


def test_operator_holds_modules_in_its_packages_only() -> None:
    """pytest would import `operator/bench/x.py`, for doctests, as part of a module `operator`."""
    modules = (ROOT / "operator").rglob("*.py")
    packages = {path.relative_to(ROOT / "operator").parts[0] for path in modules}
    assert packages == {"epidote_core", "epidote_planner", "epidote_operator"}


def test_test_folders_are_not_packages() -> None:
    """`tests/operator/__init__.py` would make pytest install it as `sys.modules["operator"]`."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


@pytest.mark.parametrize(
    "extra", [{}, {"PYTHONPATH": str(ROOT)}, {"PYTHONPATH": str(ROOT / "tests")}]
)
def test_stdlib_operator_wins_from_repo_root(extra: dict[str, str]) -> None:
    """A fresh interpreter started at the repo root must find the stdlib module."""
    code = (
        "import sys; sys.modules.pop('operator', None); import operator; print(operator.__file__)"
    )
    out = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=ROOT,
        env={**os.environ, **extra},
        capture_output=True,
        text=True,
        check=False,
    )
    assert out.returncode == 0, out.stderr
    assert not pathlib.Path(out.stdout.strip()).is_relative_to(ROOT), out.stdout
