"""This file is about LoadTest: one run of the load generator against a service, and its verdict."""

from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from epidote_operator.spec.field_model import (
    DAY_SECONDS,
    ImageName,
    ObjectName,
    SpecModel,
    StatusModel,
    cel_rules,
    list_map,
)
from epidote_operator.spec.model_source import SecretKey
from epidote_operator.spec.pool import PASS_THROUGH, PodResources, PodTemplate
from epidote_operator.spec.service_status import Condition, Timestamp

PLURAL = "loadtests"


class LoadTestTarget(SpecModel):
    """Whom to test: exactly one of `serviceName` and `url`."""

    model_config = cel_rules(
        (
            "has(self.serviceName) != has(self.url)",
            "must have exactly one of serviceName and url",
            None,
        ),
        ("self == oldSelf", "can't be changed: create another LoadTest", None),
    )

    service_name: ObjectName | None = None
    """A MultimodalService of this namespace. The test starts once it is Ready."""
    url: Annotated[str, Field(pattern=r"^https?://[^\s]+$", max_length=2048)] | None = None
    """Any OpenAI-compatible server, without `/v1`."""
    api_key: SecretKey | None = None
    """Key to send."""


class LoadTestSpec(SpecModel):
    """One run. A LoadTest runs once; to run again, create another one."""

    target: LoadTestTarget
    """Whom to test."""
    config: Annotated[dict[str, Any], Field(json_schema_extra=PASS_THROUGH)]
    """Run file of `epidote-loadgen run`: arrivals, classes, slo, limits, seed; see
    docs/loadgen.md. Address and key are filled in from `target`."""
    wait_seconds: Annotated[int, Field(ge=0, le=DAY_SECONDS)] = 1800
    """How long to wait for the service to be Ready. After it, the test has failed."""
    timeout_seconds: Annotated[int, Field(ge=1, le=7 * DAY_SECONDS)] = 7200
    """Longest run, from its first request. What was measured by then is reported and judged: it can
    miss the SLO, but not meet it, since the rest was never tried."""
    image: ImageName | None = None
    """Image with the load generator. Default: the operator's own setting."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=365 * DAY_SECONDS)] | None = None
    """When the Job and its pod are removed. The verdict and the report stay. Default: with the
    LoadTest."""
    resources: PodResources = PodResources()
    """Requests and limits of the load generator's container (`loadgen`)."""
    template: PodTemplate = PodTemplate()
    """Laid over the generated pod."""

    kind: ClassVar[str] = "LoadTest"


class LoadTestPhase(StrEnum):
    """Where a run is."""

    PENDING = "Pending"  # waits for the service
    RUNNING = "Running"
    FINISHED = "Finished"  # with a verdict
    FAILED = "Failed"  # without one


class Verdict(StrEnum):
    """What a run found."""

    PASS = "Pass"
    FAIL = "Fail"
    INCONCLUSIVE = "Inconclusive"


class ObjectiveResult(StatusModel):
    """One objective of one class of requests."""

    class_name: str
    """Class of requests."""
    objective: str
    """The limits in words."""
    verdict: Verdict
    """Whether they were kept."""
    attained_percent: float | None = None
    """Share of requests that kept them."""
    required_percent: float | None = None
    """Share that must."""
    requests: int = 0
    """Requests judged."""


class LoadTestStatus(StatusModel):
    """How far the run is, and what it found."""

    observed_generation: Annotated[int, Field(ge=0)] | None = None
    """Generation of the spec that this status is about."""
    phase: LoadTestPhase | None = None
    """Where the run is."""
    conditions: Annotated[
        tuple[Condition, ...],
        Field(json_schema_extra=list_map("type")),
    ] = ()
    """Complete: the run has ended. SloMet: its verdict; `kubectl wait --for=condition=SloMet`."""
    verdict: Verdict | None = None
    """What the run found."""
    summary: str = ""
    """The verdict in one line."""
    objectives: tuple[ObjectiveResult, ...] = ()
    """Every objective."""
    job_name: str = ""
    """The Job."""
    report_config_map: str = ""
    """ConfigMap with the report (`report.json`; its `leftOut` names fields that are too large) and
    what else the load generator said (`messages.txt`). The pod's log has all of it, too."""
    started_at: Timestamp | None = None
    """When the Job was created."""
    finished_at: Timestamp | None = None
    """When the run ended."""
