"""This file is about making a watcher of a run file's section."""

from pathlib import Path

from epidote_loadgen.config.watch_section import WatchSection
from epidote_loadgen.watch.fleet_watcher import FleetWatcher
from epidote_loadgen.watch.kubernetes_source import KubernetesService
from epidote_loadgen.watch.look import Source
from epidote_loadgen.watch.metrics_source import MetricsPage, PrometheusServer


def build_watcher(section: WatchSection | None, *, base: Path = Path()) -> FleetWatcher | None:
    """The watcher, None where nothing is to be watched; paths are relative to `base`.

    Raises:
        NoLogin: no way to log in to Kubernetes.
    """
    if section is None:
        return None
    sources: list[Source] = []
    if section.metrics_url:
        sources.append(MetricsPage(section.metrics_url))
    if section.prometheus:
        sources.append(
            PrometheusServer(section.prometheus.url, selector=section.prometheus.selector)
        )
    if section.kubernetes:
        kube = section.kubernetes
        sources.append(
            KubernetesService(
                kube.name,
                namespace=kube.namespace,
                kubeconfig=base / kube.kubeconfig.expanduser() if kube.kubeconfig else None,
                context=kube.context,
            )
        )
    return FleetWatcher(sources, interval_s=section.interval_s)
