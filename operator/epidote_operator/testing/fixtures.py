"""This file is about test clusters in pytest: one for a session, or a clear reason to skip."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from epidote_operator.testing.binaries import MissingBinaries, find_binaries
from epidote_operator.testing.cluster import LocalCluster, load_crds
from epidote_operator.testing.expected_objects import ray_cluster_crd
from epidote_operator.testing.pretend_image import IMAGE, write_pretend_image
from epidote_operator.testing.real_image import write_real_images

CRDS = Path(__file__).resolve().parents[3] / "crds"
GPUS = 6  # of the node: the seventh worker finds no room
SCRATCH = "/var/tmp"  # pods mount a volume of their own over /tmp


@contextlib.contextmanager
def session_cluster() -> Iterator[LocalCluster]:
    """A cluster with our CRDs, the pretend image and the real ones; skips where it can't be had."""
    try:
        binaries = find_binaries()
    except MissingBinaries as missing:
        pytest.skip(f"no Kubernetes control plane: {missing}")
    if os.geteuid() != 0:
        pytest.skip("pods' volumes are mounted, which needs root")
    with tempfile.TemporaryDirectory(prefix="epidote-", dir=SCRATCH) as scratch:
        folder = Path(scratch)
        programs = write_pretend_image(folder / "image", folder / "fleet")
        images = {IMAGE: str(programs), **write_real_images(folder / "real-image")}
        cluster = LocalCluster(folder / "cluster", binaries, outlives_us=False)
        crds = [*load_crds(CRDS), ray_cluster_crd()]
        asyncio.run(cluster.up(crds=crds, images=images, gpus=GPUS))
        try:
            yield cluster
        finally:
            cluster.down()
