"""This file is about a worker pod without its weight: a process that stands for a worker elsewhere.

    POD_NAME=w-1 python -m epidote_workers.pretend_pod DIR [--role decode]

`pretend_fleet`, serving DIR, runs a worker for as long as this process lives: killed here, it is
gone there at once; on SIGTERM it drains there, and then this process ends. Starts in 50 ms, where
a process with torch takes seconds, so that tests can afford many pods.

    DIR/NAME.pod      written here: {"role", "pid"}; removed by the fleet when the worker is gone
    DIR/NAME.ready    written by the fleet while the worker is routable: what GET /readyz answers
    DIR/NAME.leaving  written here on SIGTERM
    DIR/fleet.pid     written by the fleet: without one there is nothing to wait for
"""

import argparse
import json
import os
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

POLL_S = 0.05
FLEET = "fleet.pid"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--role", default=os.environ.get("EPIDOTE_ROLE", "decode"))
    parser.add_argument("--probe-host", default=os.environ.get("POD_IP", ""))
    parser.add_argument("--probe-port", type=int, default=8001)
    arguments = parser.parse_args()
    name = os.environ.get("POD_NAME") or os.environ["HOSTNAME"]
    if arguments.probe_host:
        answer_probes(
            arguments.folder / f"{name}.ready", arguments.probe_host, arguments.probe_port
        )
    stand_for(name, arguments.role, arguments.folder)


def answer_probes(ready: Path, host: str, port: int) -> None:
    """`GET /readyz` as a worker answers it, in a thread of its own."""

    class Probe(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if ready.exists() else 503)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer((host, port), Probe)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def stand_for(name: str, role: str, folder: Path) -> None:
    """Until SIGTERM, and then until the worker has drained."""
    leaving = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: leaving.set())
    folder.mkdir(parents=True, exist_ok=True)
    note, farewell = folder / f"{name}.pod", folder / f"{name}.leaving"
    farewell.unlink(missing_ok=True)
    partial = folder / f"{name}.new"
    partial.write_text(json.dumps({"role": role, "pid": os.getpid()}))
    partial.rename(note)  # never seen half written
    leaving.wait()
    farewell.touch()
    while note.exists() and _has_fleet(folder):
        threading.Event().wait(POLL_S)
    farewell.unlink(missing_ok=True)
    note.unlink(missing_ok=True)


def _has_fleet(folder: Path) -> bool:
    """Whether anybody is there to drain the worker."""
    try:
        pid = int((folder / FLEET).read_text())
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    main()
