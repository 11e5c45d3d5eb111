"""This file is about a service's Ray cluster with one Serve application: private, or a head.

A head (`ServiceSettings.ray_host`) is the same, but on a known port, with a token that others know,
and without workers of its own: `joined_node` adds them.
Private: own temporary directory, own random ports on loopback, own token (Ray would otherwise write
one to ~/.ray, readable by others), so that a user's other Ray cluster is neither used nor harmed.
Ray is imported only after its environment is set: it reads much of it at import.
"""

import contextlib
import logging
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from epidote_core.errors import EpidoteError
from epidote_workers import loopback
from epidote_workers.fleet_view import FleetView
from epidote_workers.membership import HEARTBEAT_S
from epidote_workers.process_tree import Process, command_name, descendants, end, is_running
from epidote_workers.ray_environment import PORT_VARIABLE, ray_environment, shared_token
from epidote_workers.ray_patience import start_patiently, wait_for_slow_nodes
from epidote_workers.service_settings import (
    APP_NAME,
    ENGINE,
    FLEET,
    GATEWAY,
    HEAD_RESOURCE,
    ServiceSettings,
)
from epidote_workers.start_watch import StartWatch, last_line

Progress = Callable[[str], None]

OBJECT_STORE_BYTES = 100 << 20  # Ray's minimum is 75 MiB; tensors travel over our own memory
CLOSE_S = 2.0
WORK_S = 8.0  # for requests under way when a service stops; a second Ctrl-C ends it at once
RAY_PARTS = 10_000  # Ray counts fractions of a GPU so finely
CORE_COMMANDS = ("gcs_server", "raylet")


class DeploymentFailed(EpidoteError):
    """A deployment did not come up; the message is its own."""


class LocalService:
    """One service, in the one process that may call Ray: `service_host`."""

    def __init__(
        self, settings: ServiceSettings, directory: str, *, dashboard: bool = False
    ) -> None:
        """`directory` is private and holds everything that Ray and the workers write."""
        run_directory = Path(directory) / "w"
        run_directory.mkdir(mode=0o700)
        # One below, since Ray opens its own directory to everybody (mode 777).
        self._ray_directory = str(Path(directory) / "r")
        self.settings = replace(
            settings, worker=replace(settings.worker, run_directory=str(run_directory))
        )
        self._dashboard = dashboard
        self._core: set[Process] = set()  # Ray's own: without them nothing works
        self._failures: list[BaseException] = []

    def start(self, progress: Progress) -> None:
        """Bring everything up; returns when every worker and the gateway run.

        A head waits for its gateways only: workers join later.

        Raises:
            DeploymentFailed: with the deployment's message.
        """
        threads, host = self.settings.worker.num_threads, self.settings.ray_host
        if host:
            os.environ[PORT_VARIABLE] = str(self.settings.ray_port)
            os.environ.update(ray_environment(threads, host=host, token=shared_token()))
        else:
            os.environ.update(ray_environment(threads))
        progress("starting Ray")
        import ray
        from ray import serve

        _let_the_agent_take_any_port()
        wait_for_slow_nodes()
        start_patiently(self._start_ray, self._clear_ray)
        self._core = {p for p in descendants() if command_name(p) in CORE_COMMANDS}
        worker = self.settings.worker
        is_cut = worker.tensor_parallel_size > 1 and worker.device == "cuda"
        if (worker.device == "auto" or is_cut) and not host:
            self.settings = on_device(self.settings, ray.cluster_resources().get("GPU", 0.0))
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        progress("starting Ray Serve")
        behind_serve = self.settings.ingress == "serve"
        serve.start(
            proxy_location="HeadOnly" if behind_serve else "Disabled",
            http_options={"host": self.settings.host, "port": self.settings.port},
        )
        self._run_application(progress)

    def _clear_ray(self) -> None:
        """Everything that a failed start left: all processes below this one are Ray's."""
        import ray

        ray.shutdown()
        end(descendants(), patience_s=0.0)

    def _start_ray(self) -> None:
        import ray

        host = self.settings.ray_host
        ray.init(
            address="local",
            num_cpus=os.cpu_count(),
            include_dashboard=self._dashboard,
            namespace=APP_NAME,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _temp_dir=self._ray_directory,
            resources={HEAD_RESOURCE: 1.0} if host else None,
            _node_ip_address=host or loopback.LOOPBACK,
        )

    def _run_application(self, progress: Progress) -> None:
        from ray import serve

        from epidote_workers.serve_app import build_application, route_prefix

        def run() -> None:
            try:
                serve.run(
                    build_application(self.settings),
                    name=APP_NAME,
                    route_prefix=route_prefix(self.settings),
                    external_scaler_enabled=True,
                )
            except BaseException as error:  # raised again below, in the main thread
                self._failures.append(error)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        joins, wanted, told = self.settings.worker.joins, self.settings.num_workers, -1
        watch, hopeless = StartWatch(), None
        while thread.is_alive() and not hopeless:
            thread.join(0.25)
            with contextlib.suppress(Exception):  # a look; `run` has the last word
                status = serve.status()
                if joins and self._is_head_up(status):
                    break
                num_ready = _num_running(status, ENGINE)
                if num_ready != told:
                    progress(f"starting workers: {num_ready} of {wanted} ready")
                    told = num_ready
                if not joins:  # else it is the joining ones' affair, which may come later
                    engines = status.applications[APP_NAME].deployments[ENGINE]
                    hopeless = watch.look(num_ready, engines.message)
        if hopeless:
            raise DeploymentFailed(f"{ENGINE} did not start: {hopeless}")
        if self._failures:
            raise DeploymentFailed(_reason(self._failures[0], serve)) from self._failures[0]

    def _is_head_up(self, status: Any) -> bool:
        num_gateways = self.settings.num_gateways
        return _num_running(status, FLEET) == 1 and (
            not num_gateways or _num_running(status, GATEWAY) == num_gateways
        )

    def is_healthy(self) -> bool:
        """Whether Ray's own processes run; workers may come and go."""
        return not self._failures and all(is_running(process) for process in self._core)

    def stop(self) -> None:
        """Let requests end, but not for long; then shut Serve and Ray down."""
        import ray
        from ray import serve

        with contextlib.suppress(Exception):  # the register may be restarting; shutdown goes on
            handle: Any = serve.get_deployment_handle(FLEET, app_name=APP_NAME)
            wait_for_work(lambda: handle.view.remote().result(timeout_s=CLOSE_S))
            # Workers then stop at once: there is nobody to hand their streams to.
            handle.close.remote().result(timeout_s=CLOSE_S)
            time.sleep(HEARTBEAT_S + 0.1)  # a heartbeat carries it to every worker
        with contextlib.suppress(Exception):
            serve.shutdown()
        ray.shutdown()


def wait_for_work(
    look: Callable[[], FleetView],
    *,
    limit_s: float = WORK_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when no worker has a request, or after `limit_s`: new ones may go on coming."""
    deadline_s = clock() + limit_s
    while clock() < deadline_s:
        loads = [worker.load for worker in look().workers]
        if not any(load.num_waiting + load.num_running + load.num_encoding for load in loads):
            return
        sleep(HEARTBEAT_S / 2)


def _let_the_agent_take_any_port() -> None:
    """Ray's agent would take 52365, which a user's own cluster started later then misses.

    `ray.init` has no parameter for it (`ray start` has), so the default of 2.60's private class is
    replaced; a Ray without it keeps its default.
    """
    from ray._private import parameter

    with contextlib.suppress(AttributeError):
        parameter.RayParams = partial(parameter.RayParams, dashboard_agent_listen_port=0)


def on_device(settings: ServiceSettings, num_gpus: float) -> ServiceSettings:
    """Workers on the GPUs that Ray found, several on one if there are fewer; else on the CPU.

    Raises:
        DeploymentFailed: a model is cut over more GPUs than there are.
    """
    worker = settings.worker
    if num_gpus < 1 and worker.device == "auto":
        return replace(settings, worker=replace(worker, device="cpu"))
    size = worker.tensor_parallel_size
    if size > 1 and num_gpus < (wanted := size * settings.num_workers):
        raise DeploymentFailed(
            f"--tensor-parallel-size: {settings.num_workers} workers of {size} GPUs need {wanted}, "
            f"found {num_gpus:g}"
        )
    if size > 1:
        return replace(settings, worker=replace(worker, device="cuda", num_gpus=float(size)))
    # a worker's part is of one GPU: three on two GPUs get halves, not two thirds
    on_one = -(-settings.num_workers // max(1, int(num_gpus)))
    share = math.floor(RAY_PARTS / on_one) / RAY_PARTS
    worker = replace(worker, device="cuda", num_gpus=min(share, num_gpus), gpu_share=share)
    return replace(settings, worker=worker)


def _num_running(status: Any, deployment: str) -> int:
    states = status.applications[APP_NAME].deployments[deployment].replica_states
    return int(states.get("RUNNING", 0))


def _reason(error: BaseException, serve: Any) -> str:
    """The last line of what Serve says about the deployment that failed."""
    with contextlib.suppress(Exception):
        for name, deployment in serve.status().applications[APP_NAME].deployments.items():
            if deployment.message:
                return f"{name} did not start: {last_line(deployment.message)}"
    return str(error)
