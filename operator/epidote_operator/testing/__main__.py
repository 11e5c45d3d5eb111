"""This file is about `python -m epidote_operator.testing`: build, up, down, status."""

import argparse
import asyncio
import os
import shlex
import sys
import time
from pathlib import Path

from epidote_core.errors import EpidoteError
from epidote_operator.testing.binaries import build, cache_directory, find_binaries
from epidote_operator.testing.cluster import HELM_OPTIONS, LocalCluster, load_crds
from epidote_operator.testing.guard import MARKER
from epidote_operator.testing.processes import is_running
from epidote_operator.testing.real_image import image_folders, write_real_images

DEFAULT_FOLDER = cache_directory(os.environ).parent / "test-cluster"
PARTS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "node-agent")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m epidote_operator.testing",
        description="A real Kubernetes control plane on this machine, for tests and demos.",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", help="start it; prints the KUBECONFIG to use")
    up.add_argument(
        "--crds",
        type=Path,
        metavar="FOLDER",
        help="CRDs to apply first, for use without the chart, which brings its own",
    )
    up.add_argument(
        "--image",
        action="append",
        default=[],
        metavar="NAME=FOLDER",
        help="programs that stand for an image; may be given several times "
        "(the project's own images are there)",
    )
    up.add_argument("--gpus", type=int, default=64, help="nvidia.com/gpu that the node claims")
    down = commands.add_parser("down", help="stop it and delete its folder")
    status = commands.add_parser("status", help="which parts run")
    for command in (up, down, status):
        command.add_argument("--folder", type=Path, default=DEFAULT_FOLDER)
    make = commands.add_parser("build", help="build the programs into the cache (Debian, root)")
    make.add_argument("--work", type=Path, required=True, help="a folder with 3 GB of room")
    arguments = parser.parse_args()
    try:
        sys.exit(run(arguments))
    except EpidoteError as error:
        sys.exit(f"error: {error}")


def run(arguments: argparse.Namespace) -> int:
    """The exit code."""
    match arguments.command:
        case "up":
            return up(arguments)
        case "down":
            return down(arguments.folder)
        case "status":
            running = {part: is_running(arguments.folder, part) for part in PARTS}
            for part, runs in running.items():
                print(f"{part}: {'running' if runs else 'stopped'}")
            return 0 if all(running.values()) else 1
        case _:
            print(build(arguments.work))
            return 0


def up(arguments: argparse.Namespace) -> int:
    folder = arguments.folder
    if any(is_running(folder, part) for part in PARTS):
        print(f"it runs already; KUBECONFIG={folder}/admin.kubeconfig", file=sys.stderr)
        return 0
    cluster = LocalCluster(folder, find_binaries())
    if (folder / MARKER).exists():
        cluster.down()  # what an earlier one left behind
    elif folder.exists() and any(folder.iterdir()):
        print(f"{folder} is not empty and no test cluster: give another --folder", file=sys.stderr)
        return 2
    started_s = time.monotonic()
    crds = load_crds(arguments.crds) if arguments.crds is not None else []
    given = dict(image.split("=", 1) for image in arguments.image)
    programs = folder / "images"
    images = {**image_folders(programs), **given}
    asyncio.run(cluster.up(crds=crds, images=images, gpus=arguments.gpus))
    write_real_images(programs)
    print(
        f"up in {time.monotonic() - started_s:.1f} s. Next, with the KUBECONFIG below:\n"
        f"  helm install epidote charts/epidote {shlex.join(HELM_OPTIONS)} --wait\n"
        "  kubectl apply --server-side -f crds/samples/demo.yaml\n"
        f"Stop it with python -m epidote_operator.testing down --folder {folder}",
        file=sys.stderr,
    )
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return 0


def down(folder: Path) -> int:
    if not (folder / MARKER).exists():
        print(f"no test cluster in {folder}", file=sys.stderr)
        return 0
    LocalCluster(folder, find_binaries()).down()
    return 0


if __name__ == "__main__":
    main()
