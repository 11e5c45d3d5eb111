"""This file is about telling what a tick did: the status first, then Events, as well as can be.

The status is what people and heirs of this operator rely on. An Event that is refused (no right to
write any, a namespace that ends) is logged and counted, and costs nothing else.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from epidote_core.errors import EpidoteError
from epidote_operator.act.events import tell
from epidote_operator.kube import paths
from epidote_operator.kube.api import KubeApi, Manifest
from epidote_operator.kube.errors import ApiRefused, ApiUnreachable
from epidote_operator.service_state import ServiceState
from epidote_operator.spec.service_status import ConditionType, MultimodalServiceStatus
from epidote_operator.status.conditions import FALSE, UNKNOWN
from epidote_operator.status.news import WARNING, News, news
from epidote_operator.status.notices import with_condition
from epidote_operator.status.persistence import dumped, newest, worthwhile_patch
from epidote_operator.telemetry import OperatorMetrics

logger = logging.getLogger(__name__)

FAILED_TICK = "FailedTick"
MAX_REASON = 500  # characters of an error in the status; the log has all of it


@dataclass(frozen=True, kw_only=True)
class Teller:
    """Writes statuses and Events of services."""

    api: KubeApi
    metrics: OperatorMetrics

    async def status(
        self, resource: Manifest, status: MultimodalServiceStatus, state: ServiceState
    ) -> None:
        """One patch of what changed; none if nothing did that a reader or a heir would miss.

        Raises:
            KubeError: it was not written.
        """
        metadata = resource["metadata"]
        patch = worthwhile_patch(resource.get("status") or {}, dumped(status))
        if patch:
            path = f"{paths.service(metadata['namespace'], metadata['name'])}/status"
            state.latest = await self.api.merge(path, {"status": patch})
        self.metrics.show(metadata["namespace"], metadata["name"], status)

    async def events(self, resource: Manifest, found: Iterable[News], now_s: float) -> None:
        """Write Events, best effort."""
        where = (resource["metadata"]["namespace"], resource["metadata"]["name"])
        for item in found:
            is_bad = item.kind == WARNING
            logger.log(
                logging.WARNING if is_bad else logging.INFO,
                "told",
                extra={"service": "/".join(where), "reason": item.reason, "why": item.message},
            )
            try:
                await tell(
                    self.api,
                    resource,
                    reason=item.reason,
                    message=item.message,
                    now_s=now_s,
                    kind=item.kind,
                )
            except EpidoteError as error:
                self.metrics.events_lost.labels(*where).inc()
                logger.warning(
                    "event not written", extra={"service": "/".join(where), "error": str(error)}
                )

    async def failure(
        self,
        resource: Manifest,
        state: ServiceState,
        error: Exception,
        now_s: float,
        *,
        is_lasting: bool = False,
    ) -> None:
        """Say in the status that a tick failed, and why, if the status can be written at all.

        `is_lasting`: ticks have failed for long. What Ready said then is not known to hold any
        more, and a service that never had a tick has no Ready yet: it is Unknown.

        Raises:
            ApiRefused: we have no right to write the status.
        """
        resource = newest(resource, state.latest)
        if isinstance(error, ApiUnreachable):
            return  # the status could not be written either
        before = MultimodalServiceStatus.model_validate(resource.get("status") or {})
        why = str(error) if isinstance(error, EpidoteError) else f"{type(error).__name__}: {error}"
        if isinstance(error, TimeoutError):
            why = "the tick took too long"
        told = f"nothing was decided or done: {why[:MAX_REASON]}"
        findings = {ConditionType.ABLE_TO_SCALE: FALSE}
        if is_lasting or all(item.type != ConditionType.READY for item in before.conditions):
            findings[ConditionType.READY] = UNKNOWN
        after = before
        for kind, is_so in findings.items():
            after = with_condition(
                after,
                kind.value,
                (is_so, FAILED_TICK, told),
                before.conditions,
                now_s=now_s,
                generation=resource["metadata"].get("generation"),
            )
        try:
            await self.status(resource, after, state)
        except EpidoteError as refused:
            if isinstance(refused, ApiRefused) and refused.status == 403:
                raise
            logger.warning("failure not told in the status", extra={"error": str(refused)})
            return
        await self.events(resource, news(before, after, None), now_s)
