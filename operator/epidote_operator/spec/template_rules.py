"""This file is about pod templates: what may be laid over the generated pods and what not."""

from collections.abc import Iterator, Mapping
from typing import Any

from epidote_operator.spec.invalid import Problem, shown
from epidote_operator.spec.multimodal_service import MultimodalServiceSpec
from epidote_operator.spec.pool import PodTemplate
from epidote_operator.spec.template_shape import shape_problems

DOMAIN = "epidote.dev"
LISTS = ("containers", "initContainers", "volumes")
OWNED = {
    "restartPolicy": "the operator replaces pods itself",
    "serviceAccountName": "cluster.serviceAccountName says it",
    "imagePullSecrets": "cluster.imagePullSecrets says it",
}
OWNED_OF_CONTAINER = {
    "image": "spec.image says it",
    "command": "the operator starts it",
    "args": "the operator starts it",
}
OURS = ("worker", "head", "gateway")


def template_problems(spec: MultimodalServiceSpec) -> Iterator[Problem]:
    """What is wrong with the templates of workers, head and gateways."""
    drain_s = spec.scaling.drain_deadline_seconds
    for path, template in (
        ("spec.pool.template", spec.pool.template),
        ("spec.cluster.head.template", spec.cluster.head.template),
        ("spec.gateway.template", spec.gateway.template),
    ):
        yield from metadata_problems(f"{path}.metadata", template)
        yield from shape_problems(path, template)
        yield from _pod(f"{path}.spec", template.spec, drain_s)


def metadata_problems(path: str, template: PodTemplate) -> Iterator[Problem]:
    """What is wrong with a template's labels and annotations."""
    for field, value in template.metadata.items():
        if field not in ("labels", "annotations"):
            yield Problem(
                path=f"{path}.{field}",
                wanted="must be left out, only labels and annotations may be given",
                found=shown(value),
            )
        elif not isinstance(value, Mapping):
            yield Problem(path=f"{path}.{field}", wanted="must be an object", found=shown(value))
        else:
            yield from _own_names(f"{path}.{field}", value)


def _own_names(path: str, values: Mapping[str, Any]) -> Iterator[Problem]:
    for name, value in values.items():
        domain = name.partition("/")[0]
        if domain == DOMAIN or domain.endswith(f".{DOMAIN}"):
            yield Problem(
                path=f"{path}.{name}",
                wanted=f"must be left out, names of {DOMAIN} are the operator's",
                found=shown(value),
            )
        elif not isinstance(value, str):
            yield Problem(path=f"{path}.{name}", wanted="must be a string", found=shown(value))


def _pod(path: str, pod: Mapping[str, Any], drain_s: int) -> Iterator[Problem]:
    for field, reason in OWNED.items():
        if field in pod:
            yield Problem(
                path=f"{path}.{field}",
                wanted=f"must be left out, {reason}",
                found=shown(pod[field]),
            )
    grace = pod.get("terminationGracePeriodSeconds")
    if grace is not None and (not isinstance(grace, int) or grace < drain_s):
        yield Problem(
            path=f"{path}.terminationGracePeriodSeconds",
            wanted=f"must be at least scaling.drainDeadlineSeconds ({drain_s})",
            found=shown(grace),
        )
    for field in LISTS:
        yield from _named(f"{path}.{field}", pod.get(field, []))


def _named(path: str, entries: Any) -> Iterator[Problem]:
    if not isinstance(entries, list):
        return  # told with the template's shape
    for number, entry in enumerate(entries):
        if isinstance(entry, Mapping) and entry.get("name") in OURS:
            for field, reason in OWNED_OF_CONTAINER.items():
                if field in entry:
                    yield Problem(
                        path=f"{path}[{number}].{field}",
                        wanted=f"must be left out, {reason}",
                        found=shown(entry[field]),
                    )
