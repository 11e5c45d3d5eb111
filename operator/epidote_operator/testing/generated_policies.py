"""This file is about making valid cache policies by the thousand, and spoiling them."""

from random import Random
from typing import Any

from epidote_operator.testing.faults import Fault, Spec, set_field, wrong

NAMES = ("default", "faq", "account", "code", "news", "small-talk")


def cache_policy(rng: Random) -> Spec:
    """A valid spec of a CachePolicy, with one category at least."""
    names = rng.sample(NAMES, rng.randint(1, len(NAMES)))
    spec: Spec = {"categories": [_category(rng, name) for name in names]}
    if rng.random() < 0.3:
        spec["enabled"] = rng.random() < 0.5
    if rng.random() < 0.3:
        spec["epoch"] = str(rng.randint(1, 99))
    if rng.random() < 0.3:
        spec["tenants"] = {"isolated": rng.random() < 0.5, "optedOut": ["acme"]}
    if rng.random() < 0.3:
        spec["limits"] = {"maxEntries": rng.randint(1, 10**6)}
    if rng.random() < 0.3:
        spec["pressure"] = {"enter": 0.5, "leave": rng.choice((0.0, 0.1, 0.5))}
    return spec


def _category(rng: Random, name: str) -> dict[str, Any]:
    category: dict[str, Any] = {"name": name, "threshold": rng.randint(80, 100) / 100}
    if rng.random() < 0.5:
        category["ttlSeconds"] = rng.randint(1, 86_400)
    if rng.random() < 0.2:
        category["enabled"] = False
    if rng.random() < 0.2:
        category["volatile"] = True
    elif rng.random() < 0.3:
        category["loadAdaptation"] = {"thresholdStep": 0.02, "thresholdFloor": 0.7}
    if rng.random() < 0.3:
        category["exemplars"] = [f"a typical question about {name}"]
    if rng.random() < 0.2:
        category["guards"] = ["numbers", "dates"]
    return category


def _first(field: str, value: Any, *, at: str | None = None) -> Fault:
    """The first category's field; `at`: the one to be named, if it is another one."""

    def spoil(spec: Spec) -> None:
        set_field(field, value)(spec["categories"][0])

    path = f"spec.categories[0].{at or field}"
    return Fault(name=f"{path}={value!r:.40}", path=path, spoil=spoil, schema=True)


def _twice(spec: Spec) -> None:
    spec["categories"] = [spec["categories"][0]] * 2


def _volatile_that_relaxes(spec: Spec) -> None:
    spec["categories"][0] |= {"volatile": True, "loadAdaptation": {"thresholdStep": 0.1}}


POLICY_FAULTS: tuple[Fault, ...] = (
    _first("threshold", 2),
    _first("ttlSeconds", 0),
    _first("name", "Not A Name"),
    _first("guards", ["spelling"], at="guards[0]"),
    _first("quotaRatio", "half"),
    wrong("limits.maxEntries", 0, schema=True),
    wrong("requests.personalized", "Sometimes", schema=True),
    wrong("embedder.maxTokens", 1, schema=True),
    wrong("pressure", {"enter": 0.1, "leave": 0.5}, at="pressure.leave"),
    Fault(name="a category twice", path="spec.categories[1].name", spoil=_twice),
    Fault(
        name="volatile, and relaxes",
        path="spec.categories[0].loadAdaptation",
        spoil=_volatile_that_relaxes,
    ),
)
