"""This file is about the one call that sets the number of Serve replicas from outside.

Serve's public way is REST on the dashboard:
`POST /api/v1/applications/{app}/deployments/{deployment}/scale`. Local mode runs without a
dashboard (a process, 90 MB), and redeploying the application takes 5 s; so the controller is asked
directly, as that REST handler itself does (ray/dashboard/modules/serve/serve_head.py). Measured:
1.4 s up, 0.3 s down. `external_scaler_enabled` must be set on the application.

Which replicas stop on scale-down is Serve's choice (Ray 2.60: first those not running, then those
on nodes with fewest replicas, then the newest), hence a worker that is told to stop says goodbye to
the register, which hands its stage over first.
"""

import asyncio
from typing import Any

from epidote_core.errors import EpidoteError

CALL_TIMEOUT_S = 10.0


class ScalingFailed(EpidoteError):
    """Serve refused or did not answer."""


async def scale_by_controller(app: str, deployment: str, num_replicas: int) -> None:
    """Set the replicas of a deployment of this cluster; private API of Ray 2.60, kept in here."""
    import ray
    from ray.serve._private.common import DeploymentID
    from ray.serve._private.constants import SERVE_CONTROLLER_NAME, SERVE_NAMESPACE

    def controller() -> Any:
        return ray.get_actor(SERVE_CONTROLLER_NAME, namespace=SERVE_NAMESPACE)

    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            actor = await asyncio.to_thread(controller)
            await actor.update_deployment_replicas.remote(
                DeploymentID(deployment, app), num_replicas
            )
    except Exception as error:  # Ray raises many kinds; the caller only needs to know that
        raise ScalingFailed(f"Serve did not scale {deployment} to {num_replicas}") from error
