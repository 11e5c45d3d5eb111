"""This file is about `epidote gateway`: HTTP for somebody's fleet, in a process of its own."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from typing import Annotated

import typer

from epidote_core.errors import EpidoteError
from epidote_gateway.settings import GatewaySettings
from epidote_workers import cli_options as option
from epidote_workers.cli_running import EXIT_FAILED, EXIT_USAGE, fail, note, stop_on_signals
from epidote_workers.gateway_host import GatewayOrder
from epidote_workers.joined_node import JoinedNode, address_towards, parse_head
from epidote_workers.port_reservation import PortReservation
from epidote_workers.ray_environment import joining_environment, shared_token
from epidote_workers.supervisor import StartFailed

LOOK_S = 0.5
JOIN_S = 600.0  # as a worker's


def gateway(
    head: Annotated[
        str, typer.Option(help="The head's host:port, as it says.", envvar="EPIDOTE_HEAD")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: option.Port = 8000,
    node_host: Annotated[
        str, typer.Option(help="Address others reach this machine by. [default: towards the head]")
    ] = "",
    drain: Annotated[
        float, typer.Option(min=0.0, help="Seconds for streams under way after SIGTERM.")
    ] = 30.0,
    linger: Annotated[
        float,
        typer.Option(
            min=0.0,
            help="Seconds before that in which it goes on as ever: whoever sends requests here "
            "learns later than it that it ends.",
        ),
    ] = 0.0,
) -> None:
    """Serve HTTP for a fleet that was started with `epidote head`.

    The model comes from the head, settings from EPIDOTE_GATEWAY_* (docs/gateway.md).
    RAY_AUTH_TOKEN must be the head's.

    Example: epidote gateway --head 10.0.0.5:6379 --host 0.0.0.0 --port 8000
    """
    try:
        head_host, head_port = parse_head(head)
        token = shared_token()
        GatewaySettings.from_env()  # refuse now what the gateway would refuse later
        node_host = node_host or address_towards(head_host, head_port)
        reservation = PortReservation(host, port)
    except (StartFailed, OSError) as error:
        fail(str(error))
    except EpidoteError as error:
        fail(str(error), EXIT_USAGE)
    stop, hurry = stop_on_signals()
    environment = dict(joining_environment(1, host=head_host, token=token))
    node = JoinedNode()
    code = 0
    try:
        order = GatewayOrder(
            head=f"{head_host}:{head_port}",
            node=node_host,
            host=host,
            port=reservation.port,
            run_directory=str(node.run_directory),
            stop_s=drain,
        )
        node.start(order.head, node_host, environment, resources={}, patience_s=JOIN_S, stop=stop)
        if not stop.is_set():
            _run(order, environment, node, stop, hurry, linger)
    except StartFailed as error:
        note(f"error: {error}")
        code = EXIT_FAILED
    finally:
        note("leaving")
        node.stop()
        reservation.release()
    raise typer.Exit(code)


def _run(
    order: GatewayOrder,
    environment: dict[str, str],
    node: JoinedNode,
    stop: threading.Event,
    hurry: threading.Event,
    linger_s: float,
) -> None:
    """Until `stop` and `linger_s` after it; then until its streams have ended, or `hurry`.

    Raises:
        StartFailed: it ended by itself, or the node did.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "epidote_workers.gateway_host"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **environment},
        start_new_session=True,  # a terminal's Ctrl-C is for this process alone
    )
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it died: found below
        process.stdin.write(order.to_line())
        process.stdin.flush()
    told: dict[str, str] = {}
    threading.Thread(target=_listen, args=(process, told), daemon=True).start()
    was_told = False
    try:
        while not stop.wait(LOOK_S):
            if process.poll() is not None:
                raise StartFailed(told.get("failed") or "the gateway's process ended")
            node.check()
            if "listening" in told and not was_told:
                was_told = True
                typer.echo(f"epidote gateway at http://{told['listening']}/v1")
                sys.stdout.flush()
        hurry.wait(linger_s)
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        for _ in range(int((order.stop_s + 5.0) / LOOK_S)):
            if hurry.is_set():
                break
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_S)
                break


def _listen(process: "subprocess.Popen[bytes]", told: dict[str, str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        with contextlib.suppress(ValueError):  # Ray may print, too
            found = json.loads(line)
            if isinstance(found, dict):
                told.update(found)
