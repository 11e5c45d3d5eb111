"""The Dockerfiles install what pyproject.toml names, copy what exists, and run as nobody."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
FILES = [ROOT / "operator/Dockerfile", ROOT / "workers/Dockerfile"]


def lines(path: Path) -> list[str]:
    """Instructions, continued lines joined, comments left out."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_source_that_is_copied_exists(path: Path) -> None:
    copied = [line.split()[1:-1] for line in lines(path) if line.startswith("COPY")]
    for sources in copied:
        for source in sources:
            if not source.startswith(("--from", "/")):
                assert (ROOT / source).exists(), source


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_source_root_of_the_wheel_is_copied(path: Path) -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = config["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    roots = {package.partition("/")[0] for package in packages}
    copied = {word for line in lines(path) if line.startswith("COPY") for word in line.split()}
    assert roots <= copied


@pytest.mark.parametrize(
    ("path", "extras"), list(zip(FILES, [{"operator"}, {"workers", "loadgen"}], strict=True))
)
def test_the_extras_are_the_projects_own(path: Path, extras: set[str]) -> None:
    (found,) = re.findall(r'install --no-cache-dir "\.\[([a-z,]+)\]"', " ".join(lines(path)))
    assert set(found.split(",")) == extras
    assert extras <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_the_image_runs_as_a_number_that_is_not_root(path: Path) -> None:
    (user,) = [line.split()[1] for line in lines(path) if line.startswith("USER")]
    assert all(part.isdigit() and int(part) > 0 for part in user.split(":"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_the_entry_point_is_an_installed_script(path: Path) -> None:
    words = re.findall(r'"([a-z-]+)"', " ".join(lines(path)[-2:]))
    assert words[0] in PROJECT["scripts"]
