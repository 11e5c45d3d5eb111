"""This file is about the section on what is watched beside the load: the service's own view."""

from pathlib import Path
from typing import Self

from pydantic import field_validator, model_validator

from epidote_loadgen.config.section import Positive, Section


class PrometheusSection(Section):
    """A Prometheus server; `selector` narrows every query, as in namespace="prod"."""

    url: str
    selector: str = ""


class KubernetesSection(Section):
    """A MultimodalService. `kubeconfig` empty: the pod's own account, else ~/.kube/config."""

    name: str
    namespace: str = "default"
    kubeconfig: Path | None = None
    context: str = ""


class WatchSection(Section):
    """At least one source."""

    metrics_url: str = ""  # a page in Prometheus' text form
    prometheus: PrometheusSection | None = None
    kubernetes: KubernetesSection | None = None
    interval_s: Positive = 1.0
    gpus_per_worker: Positive = 1.0
    profile: str = ""  # for the lower bound: a profile of `simulate`, or a JSON file of one

    @field_validator("metrics_url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        if url and not url.startswith(("http://", "https://")):
            raise ValueError("must begin with http://, https://")
        return url

    @model_validator(mode="after")
    def _something(self) -> Self:
        if not (self.metrics_url or self.prometheus or self.kubernetes):
            raise ValueError("want metrics_url, prometheus or kubernetes, found none")
        return self
