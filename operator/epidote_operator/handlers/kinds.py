"""This file is about our kinds being served: the CRDs must be there before the operator starts.

kopf looks once which resources there are (more would need the right to watch every CRD), and would
wait in silence for kinds that were not there at that moment.
"""

import asyncio
import logging

from epidote_core.errors import EpidoteError
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi
from epidote_operator.kube.errors import KubeError
from epidote_operator.spec.crds import RESOURCES

logger = logging.getLogger(__name__)

PATIENCE_S, PAUSE_S = 60.0, 1.0  # a CRD is served seconds after it was applied
DISCOVERY = f"/apis/{paths.API_VERSION}"  # every account may read it


class MissingKinds(EpidoteError):
    """The API server does not serve our resources."""


async def demand_kinds(
    api: KubeApi, stop: asyncio.Event, *, patience_s: float = PATIENCE_S, pause_s: float = PAUSE_S
) -> None:
    """Return when every kind of ours is served, or when `stop` is set.

    Raises:
        MissingKinds: some are not, after `patience_s`; with the last failure to ask, if there was.
    """
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + patience_s
    while True:
        try:
            missing, why = await _missing(api), ""
        except KubeError as error:  # the server may be about to come up
            missing, why = [resource.plural for resource in RESOURCES], f" ({error})"
        if not missing or stop.is_set():
            return
        if loop.time() >= deadline_s:
            raise MissingKinds(
                f"{paths.API_VERSION} must be served with {', '.join(missing)}, found none of "
                f"these{why}: install the chart's CRDs (crds.install, or kubectl apply "
                "--server-side -f charts/epidote/files/crds)"
            )
        logger.info("waiting for our kinds", extra={"missing": missing, "why": why})
        await asyncio.sleep(pause_s)


async def _missing(api: KubeApi) -> list[str]:
    found = await api.get(DISCOVERY) or {}
    served = {resource["name"] for resource in found.get("resources") or ()}
    return [resource.plural for resource in RESOURCES if resource.plural not in served]
