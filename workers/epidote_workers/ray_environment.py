"""This file is about the environment of Ray's processes, and what makes a cluster private.

To be set before Ray is imported: it reads much of it then.
"""

import hmac
import ipaddress
import os
import secrets
from collections.abc import Mapping
from hashlib import sha256

from epidote_core.errors import InvalidRequest
from epidote_workers import loopback
from epidote_workers.rpc.secret import TOKEN_VARIABLE

FLEET_VARIABLE = "EPIDOTE_FLEET"  # names the fleet, where several share a token
PORT_VARIABLE = "RAY_GCS_SERVER_PORT"  # Ray's own name for where its nodes meet


# Ray ends a node that has not reached its head for a minute. What clients ask does not pass the
# head: a fleet can serve until one is back, though Kubernetes may take five minutes to give up a
# lost node, and some more to fetch an image on another.
HEADLESS_VARIABLE, HEADLESS_S = "RAY_gcs_rpc_server_reconnect_timeout_s", 1800


def is_loopback(host: str) -> bool:
    """Whether an address, or a name for it, never leaves this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # some name: whatever it stands for


def shared_token(environ: Mapping[str, str] = os.environ) -> str:
    """The token that every node of one cluster is started with.

    Where `EPIDOTE_FLEET` names the fleet, one made of the given one and that name: a node that
    reaches the head of another fleet (a port that changed hands, another revision's on the same
    host) is refused there by Ray.

    Raises:
        InvalidRequest: naming the variable.
    """
    token = environ.get(TOKEN_VARIABLE, "")
    if len(token) < 16:
        raise InvalidRequest(
            f"{TOKEN_VARIABLE}: must be set to the same secret of at least 16 characters for head,"
            f" workers and gateways, got {len(token)} characters",
            TOKEN_VARIABLE,
        )
    fleet = environ.get(FLEET_VARIABLE, "")
    return hmac.new(token.encode(), fleet.encode(), sha256).hexdigest() if fleet else token


def joining_environment(
    num_threads: int, *, host: str, token: str, environ: Mapping[str, str] = os.environ
) -> Mapping[str, str]:
    """What the processes of a node inherit that joins another machine's cluster."""
    patience = environ.get(HEADLESS_VARIABLE, str(HEADLESS_S))
    return {**ray_environment(num_threads, host=host, token=token), HEADLESS_VARIABLE: patience}


def ray_environment(
    num_threads: int, *, host: str = loopback.LOOPBACK, token: str = ""
) -> Mapping[str, str]:
    """What the processes of a node inherit. `token` "": one that nobody else knows."""
    stays = is_loopback(host)
    return {
        "RAY_AUTH_MODE": "token",
        TOKEN_VARIABLE: token or secrets.token_hex(32),
        FLEET_VARIABLE: "",  # the token is this fleet's by now
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        # Ray replaces a node address of 127.0.0.1 by the host's own and then listens on all
        # interfaces; without "clusters" (Ray's wording: several hosts) it stays on loopback.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0" if stays else "1",
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",  # it takes SIGTERM for a crash and aborts
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",  # workers use this interpreter as it is
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # num_gpus=0 actors leave CUDA's variables alone
        loopback.VARIABLE: "1" if stays else "0",
        "OMP_NUM_THREADS": str(num_threads),
        "OMP_WAIT_POLICY": "PASSIVE",  # threads that wait leave the cores to other workers
        "TOKENIZERS_PARALLELISM": "false",
    }
