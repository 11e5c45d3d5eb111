"""This file is about resources of all three kinds as people apply them: half of them with a fault.

Their pods ask for a node that there is not, so that a thousand services start no process.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from epidote_operator.kube.api import Manifest
from epidote_operator.spec import cache_policy as policies
from epidote_operator.spec import load_test as load_tests
from epidote_operator.spec import multimodal_service as services
from epidote_operator.spec.field_model import API_VERSION
from epidote_operator.testing.faults import Fault, Spec, set_field, spoiled
from epidote_operator.testing.generated_load_tests import (
    LOAD_TEST_FAULTS,
    LOAD_TEST_SERVER_FAULTS,
    load_test,
)
from epidote_operator.testing.generated_policies import POLICY_FAULTS, cache_policy
from epidote_operator.testing.generated_services import service
from epidote_operator.testing.service_faults import FAULTS, SERVER_FAULTS

KINDS = {
    "MultimodalService": services.PLURAL,
    "CachePolicy": policies.PLURAL,
    "LoadTest": load_tests.PLURAL,
}
# of ten resources in a row; their neighbours are of other kinds
ORDER = tuple(
    {"s": "MultimodalService", "p": "CachePolicy", "l": "LoadTest"}[letter]
    for letter in "sspslsspsl"
)
NOWHERE: Spec = {"spec": {"nodeSelector": {"there-is": "none"}}}
TEMPLATES = ("pool.template", "cluster.head.template", "gateway.template")
ALL_FAULTS: dict[str, Sequence[Fault]] = {
    "MultimodalService": (*FAULTS, *SERVER_FAULTS),
    "CachePolicy": POLICY_FAULTS,
    "LoadTest": (*LOAD_TEST_FAULTS, *LOAD_TEST_SERVER_FAULTS),
}


@dataclass(frozen=True, kw_only=True)
class Generated:
    """One resource. `fault` None: it is valid."""

    manifest: Manifest
    fault: Fault | None

    @property
    def kind(self) -> str:
        return str(self.manifest["kind"])

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def plural(self) -> str:
        return KINDS[self.kind]


def resource(seed: int, namespace: str) -> Generated:
    """The resource number `seed`. Odd ones have a fault, every one of their kind in turn."""
    rng = Random(seed)
    tens, place = divmod(seed // 2, len(ORDER))
    kind = ORDER[place]
    turn = tens * ORDER.count(kind) + ORDER[:place].count(kind)
    spec = _valid(rng, kind, seed)
    fault = ALL_FAULTS[kind][turn % len(ALL_FAULTS[kind])] if seed % 2 else None
    manifest: dict[str, Any] = {
        "apiVersion": API_VERSION,
        "kind": kind,
        "metadata": {"name": f"g-{seed}", "namespace": namespace},
        "spec": spec if fault is None else spoiled(spec, fault),
    }
    return Generated(manifest=manifest, fault=fault)


def _valid(rng: Random, kind: str, seed: int) -> Spec:
    neighbour = f"g-{max(0, seed - rng.choice((2, 4, 6)))}"  # of whatever kind, or not there
    if kind == "CachePolicy":
        return cache_policy(rng)
    if kind == "LoadTest":
        return {**load_test(rng, neighbour), "template": NOWHERE}
    spec = service(rng)
    if rng.random() < 0.3:
        spec["cache"] = {"policyName": neighbour}
    for path in TEMPLATES:
        set_field(path, NOWHERE)(spec)
    return spec
