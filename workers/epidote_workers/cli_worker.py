"""This file is about `epidote worker`: this machine (or pod) as one worker of somebody's fleet."""

import asyncio
import threading
from typing import Annotated

import typer
import uvicorn

from epidote_core.errors import EpidoteError
from epidote_core.roles import Role
from epidote_workers.cli_running import EXIT_FAILED, EXIT_USAGE, fail, note, stop_on_signals
from epidote_workers.gateway_socket import listening_socket
from epidote_workers.joined_node import JoinedNode, address_towards, parse_head
from epidote_workers.node_settings import NodeSettings
from epidote_workers.node_workers import NodeWorkers
from epidote_workers.probe_app import probe_app
from epidote_workers.ray_environment import joining_environment, shared_token
from epidote_workers.service_settings import WORKER_RESOURCE
from epidote_workers.supervisor import StartFailed

LOOK_S = 0.5
PROBES_END_S = 2.0
JOIN_S = 600.0  # a head that pulls its image takes minutes


def worker(
    head: Annotated[
        str,
        typer.Option(help="The head's host:port, as `epidote head` says.", envvar="EPIDOTE_HEAD"),
    ],
    host: Annotated[
        str, typer.Option(help="Address others reach this machine by. [default: towards the head]")
    ] = "",
    name: Annotated[
        str,
        typer.Option(
            help="Shown as the worker's node; a pod's name. [default: the machine's boot id]",
            envvar=["EPIDOTE_NODE_NAME", "POD_NAME"],
        ),
    ] = "",
    role: Annotated[
        str,
        typer.Option(
            help="encode, prefill or decode: taken if the fleet misses one. [default: as it likes]",
            envvar="EPIDOTE_ROLE",
        ),
    ] = "",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads to compute with.")] = 1,
    drain: Annotated[
        float, typer.Option(min=0.0, help="Seconds for work under way after SIGTERM.")
    ] = 30.0,
    probe_host: Annotated[str, typer.Option(help="Where probes are answered.")] = "127.0.0.1",
    probe_port: Annotated[int, typer.Option(min=0, max=65535, help="0: no probes.")] = 0,
) -> None:
    """Join a fleet as one worker; SIGTERM or Ctrl-C hands its work over and leaves.

    RAY_AUTH_TOKEN must be the head's.

    Example: epidote worker --head 10.0.0.5:6379 --probe-host 0.0.0.0 --probe-port 8001
    """
    try:
        if role and role not in set(Role):
            fail(f"--role: must be one of {', '.join(Role)}, got {role!r}", EXIT_USAGE)
        head_host, head_port = parse_head(head)
        token = shared_token()
        host = host or address_towards(head_host, head_port)
    except StartFailed as error:
        fail(str(error))
    except EpidoteError as error:
        fail(str(error), EXIT_USAGE)
    stop, hurry = stop_on_signals()
    node = JoinedNode()
    code = 0
    try:
        environment = {
            **joining_environment(threads, host=head_host, token=token),
            **NodeSettings(
                run_directory=str(node.run_directory), host=host, name=name, role=role
            ).to_env(),
        }
        node.start(
            f"{head_host}:{head_port}",
            host,
            environment,
            resources={WORKER_RESOURCE: 1.0},
            patience_s=JOIN_S,
            stop=stop,
        )
        if not stop.is_set():
            note(f"joined {head} as {host}")
        asyncio.run(_watch(node, stop, hurry, probe_host, probe_port, drain))
    except (StartFailed, OSError) as error:
        note(f"error: {error}")
        code = EXIT_FAILED
    finally:
        note("leaving")
        node.stop()
    raise typer.Exit(code)


async def _watch(
    node: JoinedNode,
    stop: threading.Event,
    hurry: threading.Event,
    probe_host: str,
    probe_port: int,
    drain_s: float,
) -> None:
    """Answer probes until `stop`, then retire the worker; `hurry` cuts that short.

    Raises:
        StartFailed: the node ended by itself.
        OSError: the probes' port can't be had.
    """
    workers = NodeWorkers(node.run_directory)
    probes = None
    beside = [asyncio.create_task(workers.run())]
    try:
        if probe_port:
            app = probe_app(workers, is_well=lambda: node.is_well, model="")
            config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
            probes = uvicorn.Server(config)
            sock = listening_socket(probe_host, probe_port)
            # `serve` would take the signals, which are ours
            beside.append(asyncio.create_task(probes._serve([sock])))
        await _until_stopped(node, workers, stop)
        retiring = asyncio.create_task(workers.retire(drain_s))
        while not retiring.done() and not hurry.is_set():
            await asyncio.wait([retiring], timeout=LOOK_S)
        retiring.cancel()
        await asyncio.gather(retiring, return_exceptions=True)
    finally:
        if probes is not None:
            probes.should_exit = True
            await asyncio.wait(beside[1:], timeout=PROBES_END_S)
        for task in beside:
            task.cancel()
        await asyncio.gather(*beside, return_exceptions=True)


async def _until_stopped(node: JoinedNode, workers: NodeWorkers, stop: threading.Event) -> None:
    """Raises `StartFailed` if the node ends by itself."""
    was_ready = False
    while not stop.is_set():
        await asyncio.sleep(LOOK_S)
        node.check()
        if workers.is_ready and not was_ready:
            view = workers.workers()[0]
            note(f"serving: worker {view.worker_id} as {view.role.value}")
        was_ready = workers.is_ready
