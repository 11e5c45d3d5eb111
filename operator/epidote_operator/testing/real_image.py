"""This file is about the project's own images on a test node: folders with its real programs.

The node may pretend GPUs; whatever a fleet is told, here it computes on the CPU.
"""

import sys
from pathlib import Path

OPERATOR_IMAGE, WORKER_IMAGE = "epidote/operator:0.1.0", "epidote/worker:0.1.0"
SCRIPTS = {
    "epidote": """#!/bin/sh
for argument; do
    shift
    [ "$argument" = --device=cuda ] && argument=--device=cpu
    set -- "$@" "$argument"
done
exec {python} -m epidote_workers.cli "$@"
""",
    "epidote-loadgen": """#!/bin/sh
exec {python} -c 'from epidote_loadgen.cli import main; main()' "$@"
""",
    "entrypoint": """#!/bin/sh
exec {python} -m epidote_operator "$@"
""",
}


def write_real_images(folder: Path) -> dict[str, str]:
    """Make the programs in `folder`; the images that they stand for."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, script in SCRIPTS.items():
        path = folder / name
        path.write_text(script.format(python=sys.executable))
        path.chmod(0o755)
    return image_folders(folder)


def image_folders(folder: Path) -> dict[str, str]:
    """The project's images, by name, if `write_real_images` is called for `folder`."""
    return {OPERATOR_IMAGE: str(folder), WORKER_IMAGE: str(folder)}
