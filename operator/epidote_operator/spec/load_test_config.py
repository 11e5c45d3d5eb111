"""This file is about what can be said of a LoadTest's `config` without the load generator.

It is a run file of `epidote-loadgen`, which the operator is not built with: names of sections and
kinds are written down here, and a test compares them with the load generator's own. Numbers,
distributions and what must fit together are judged where the test runs, before its first request.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from epidote_operator.spec.invalid import NOTHING, Problem, shown

ROOT = "spec.config"
OBJECTS = ("arrivals", "classes", "slo", "limits", "watch", "output")
SECTIONS = ("seed", "confidence", "target", *OBJECTS)  # of the target, `load_test_rules` has more
ARRIVALS = ("open", "streams", "closed", "trace")  # `arrivals.kind`; open where it is left out
CLASSES = ("lengths", "questions", "paraphrases", "trace")  # `classes.NAME.kind`
TRACE = "trace"  # its class need not be said


def config_problems(config: Mapping[str, Any]) -> Iterator[Problem]:
    """What no load generator of this version would run.

    >>> [str(problem) for problem in config_problems({"arrivals": {"rate": 1}, "slo": {}})]
    ['spec.config.classes: must have at least one class, got nothing']
    """
    for name, value in config.items():
        path = f"{ROOT}.{name}"
        if name not in SECTIONS:
            known = ", ".join(SECTIONS)
            wanted = f"must be left out, there is no such section ({known})"
            yield Problem(path=path, wanted=wanted, found=shown(value))
        elif name in OBJECTS and not isinstance(value, Mapping) and value is not None:
            yield Problem(path=path, wanted="must be an object", found=shown(value))
    arrivals, classes = config.get("arrivals"), config.get("classes")
    if arrivals is None:
        yield Problem(path=f"{ROOT}.arrivals", wanted="must be given", found=NOTHING)
    elif isinstance(arrivals, Mapping):
        yield from _kind(f"{ROOT}.arrivals", arrivals, ARRIVALS, default="open")
    replays = isinstance(arrivals, Mapping) and arrivals.get("kind") == TRACE
    if isinstance(classes, Mapping):
        yield from _classes(classes)
    if not classes and not replays:
        found = NOTHING if classes is None else shown(classes)
        path = f"{ROOT}.classes"
        yield Problem(path=path, wanted="must have at least one class", found=found)


def _classes(classes: Mapping[str, Any]) -> Iterator[Problem]:
    for name, given in classes.items():
        path = f"{ROOT}.classes.{name}"
        if isinstance(given, Mapping):
            yield from _kind(path, given, CLASSES)
        else:
            yield Problem(path=path, wanted="must be an object", found=shown(given))


def _kind(
    path: str, given: Mapping[str, Any], kinds: tuple[str, ...], default: str | None = None
) -> Iterator[Problem]:
    kind = given.get("kind", default)
    if kind not in kinds:
        wanted = f"must be one of {', '.join(kinds)}"
        yield Problem(path=f"{path}.kind", wanted=wanted, found=shown(kind))
