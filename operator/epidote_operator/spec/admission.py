"""This file is about what is decided about a resource before it is stored: refuse, warn, let in."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from epidote_operator.spec import cache_policy, load_test, multimodal_service
from epidote_operator.spec.changes import refused_changes, refused_test_changes, rolling_changes
from epidote_operator.spec.invalid import InvalidSpec, Problem
from epidote_operator.spec.object_name import name_problems
from epidote_operator.spec.parsing import parse_cache_policy, parse_load_test, parse_service

M = TypeVar("M")
Spec = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """No problems: let in. Warnings are shown by kubectl in either case."""

    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def message(self) -> str:
        """One line per problem.

        >>> Ruling().message
        ''
        """
        return "\n".join(str(problem) for problem in self.problems)


LET_IN = Ruling()


def rule_on(
    plural: str, name: str, new: Spec, old: Spec | None = None, *, kuberay: bool = True
) -> Ruling:
    """The ruling on a resource of that plural; `old` is the stored spec where there is one.

    `kuberay`: whether this operator may write RayClusters.

    A spec that doesn't change is let in though it be invalid: labels and finalizers of a resource
    from before a stricter rule can still be changed, and it can be deleted.

    Raises:
        KeyError: `plural` is none of ours.
    """
    judge = _JUDGES[plural]
    if plural == multimodal_service.PLURAL:
        judge = partial(_service, kuberay=kuberay)
    if old is not None and dict(new) == dict(old):
        return LET_IN
    problems = name_problems(name) if old is None else []
    try:
        ruling = judge(new, old)
    except InvalidSpec as error:
        return Ruling(problems=(*problems, *error.problems))
    return Ruling(problems=(*problems, *ruling.problems), warnings=ruling.warnings)


def _service(new: Spec, old: Spec | None, *, kuberay: bool = True) -> Ruling:
    parsed = parse_service(new, kuberay=kuberay)
    before = _valid(parse_service, old)
    if before is None:
        return LET_IN
    return Ruling(
        problems=tuple(refused_changes(before, parsed)),
        warnings=tuple(rolling_changes(before, parsed)),
    )


def _policy(new: Spec, old: Spec | None) -> Ruling:
    found = parse_cache_policy(new)
    told = (*found.unfindable(), *cache_policy.without_effect(found))
    return Ruling(warnings=tuple(f"spec.{warning}" for warning in told))


def _load_test(new: Spec, old: Spec | None) -> Ruling:
    parsed = parse_load_test(new)
    before = _valid(parse_load_test, old)
    if before is None:
        return LET_IN
    return Ruling(problems=tuple(refused_test_changes(before, parsed)))


def _valid(parse: Callable[[Spec], M], spec: Spec | None) -> M | None:
    """What was stored, if it can be read: out of an invalid state every change leads."""
    try:
        return None if spec is None else parse(spec)
    except InvalidSpec:
        return None


_JUDGES: Mapping[str, Callable[[Spec, Spec | None], Ruling]] = {
    multimodal_service.PLURAL: _service,
    cache_policy.PLURAL: _policy,
    load_test.PLURAL: _load_test,
}
PLURALS = tuple(_JUDGES)
