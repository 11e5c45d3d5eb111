"""This file is about one more node for a cluster: `python -m epidote_workers.ray_node`.

`ray start --address` refuses to stay on loopback, so its two calls are made here; private API of
Ray 2.60, kept in this file. The node ends when standard input closes: nothing outlives whoever
started it.

stdin   a `NodeOrder` as one line of JSON; then open until the node shall end
stdout  one line of JSON when the node has joined
"""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from epidote_workers.process_tree import descendants
from epidote_workers.ray_environment import FLEET_VARIABLE
from epidote_workers.ray_patience import wait_for_slow_nodes
from epidote_workers.rpc.secret import TOKEN_VARIABLE

RETRY_S = 2.0
HEAD_S = 300.0
REFUSED = "InvalidAuthToken"  # Ray's word for a wrong token
OBJECT_STORE_BYTES = 100 << 20  # Ray's minimum is 75 MiB; tensors travel over our own memory


@dataclass(frozen=True, kw_only=True)
class NodeOrder:
    """Where to join, and as what. `directory` is this node's own, short, and private."""

    head: str  # host:port of the head's Ray
    host: str  # the address that others reach this node by
    directory: str
    resources: dict[str, float] = field(default_factory=dict)
    num_gpus: float = 0.0

    def to_line(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"


def join(order: NodeOrder) -> Any:
    """Start the node's processes, which end with this one; returns Ray's `Node`.

    Raises:
        Exception: whatever Ray raises if the head can't be reached or refuses.
    """
    from ray._private.node import Node

    wait_for_slow_nodes()

    def start() -> Any:
        return Node(_params(order), head=False, shutdown_at_exit=True, spawn_reaper=True)

    return when_head_is_there(start)


def when_head_is_there(start: Callable[[], Any]) -> Any:
    """The result of `start`, tried again while the head is not there yet.

    Trying again in this process costs nothing; a new one would import Ray (seconds of CPU), and
    many nodes doing that would keep a head on the same host from coming up.

    Raises:
        Exception: what `start` raised after it had begun to start processes, or at last.
    """
    deadline_s = time.monotonic() + HEAD_S
    while True:
        try:
            return start()
        except Exception:
            if descendants() or time.monotonic() > deadline_s:
                raise
            time.sleep(RETRY_S)


def failure(head: str, error: Exception) -> str:
    """What to tell people of a failed start.

    >>> failure("h:1", RuntimeError("…InvalidAuthToken: Authentication token is … incorrect"))
    'the head at h:1 refuses our token: it is of another fleet (RAY_AUTH_TOKEN, EPIDOTE_FLEET)'
    """
    if REFUSED in str(error):
        token, fleet = TOKEN_VARIABLE, FLEET_VARIABLE
        return f"the head at {head} refuses our token: it is of another fleet ({token}, {fleet})"
    return f"{type(error).__name__}: {error}"


def _params(order: NodeOrder) -> Any:
    from ray._private.parameter import RayParams

    return RayParams(
        gcs_address=order.head,
        node_ip_address=order.host,
        temp_dir=order.directory,
        num_cpus=os.cpu_count(),
        num_gpus=order.num_gpus or None,
        resources=dict(order.resources),
        object_store_memory=OBJECT_STORE_BYTES,
        include_log_monitor=False,
        dashboard_agent_listen_port=0,  # Ray's default is one fixed port for a whole host
    )


def _watch_starter(joined: threading.Event, ended: threading.Event) -> None:
    """Set `ended` when standard input closes; end at once if the head is still waited for."""
    while sys.stdin.buffer.read(1):
        pass
    ended.set()
    if not joined.is_set():
        os._exit(1)  # what was started meanwhile ends with this process


def main() -> int:
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    order = NodeOrder(**json.loads(sys.stdin.buffer.readline()))
    joined, ended = threading.Event(), threading.Event()
    threading.Thread(target=_watch_starter, args=(joined, ended), daemon=True).start()
    try:
        node = join(order)
    except Exception as error:  # of Ray; told, since nothing else can be done with it
        print(json.dumps({"failed": failure(order.head, error)}), flush=True)
        return 1
    joined.set()
    print(json.dumps({"joined": order.head}), flush=True)
    ended.wait()
    node.kill_all_processes(check_alive=False, allow_graceful=False)
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)
