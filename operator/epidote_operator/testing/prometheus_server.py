"""This file is about a real Prometheus for tests: one target, scraped every second.

Needs the program `prometheus` (Debian: `apt-get install prometheus`) in PATH.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx

from epidote_operator.testing.binaries import MissingBinaries
from epidote_operator.testing.processes import ProcessFailed

PATIENCE_S, LOOK_S = 120.0, 0.2


def find_program(name: str) -> str:
    """`prometheus` or `promtool`. Raises MissingBinaries."""
    if found := shutil.which(name):
        return found
    raise MissingBinaries(f"{name} is not installed (Debian: apt-get install prometheus)")


@contextlib.contextmanager
def running_prometheus(
    folder: Path, target: str, *, scraped: str, labels: Mapping[str, str] | None = None
) -> Iterator[str]:
    """Address of a Prometheus that has scraped `target` (host:port) at least twice.

    `scraped` is a metric to know that by; `labels` are added to every series.

    Raises:
        MissingBinaries, ProcessFailed
    """
    program = find_program("prometheus")
    static = {"targets": [target], "labels": dict(labels or {})}
    scrape = {"job_name": "test", "honor_labels": True, "static_configs": [static]}
    config = {"global": {"scrape_interval": "1s"}, "scrape_configs": [scrape]}
    (folder / "prometheus.yml").write_text(json.dumps(config))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline_s = time.monotonic() + PATIENCE_S
        while not _has_scraped(f"http://{address}", scraped):
            if time.monotonic() > deadline_s or process.poll() is not None:
                raise ProcessFailed(f"prometheus scraped nothing of {target}")
            time.sleep(LOOK_S)
        yield f"http://{address}"
    finally:
        process.kill()
        process.wait()


def _has_scraped(url: str, metric: str) -> bool:
    query = {"query": f"count_over_time({metric}[1m]) >= 2"}
    try:
        answer = httpx.get(f"{url}/api/v1/query", params=query, trust_env=False)
        return bool(answer.json()["data"]["result"])
    except (httpx.HTTPError, ValueError, KeyError):
        return False
