"""This file is about answering the API server's question whether a resource may be stored."""

from collections.abc import Mapping
from typing import Any

import kopf

from epidote_operator.act.dry_runs import DryRuns
from epidote_operator.spec.admission import PLURALS, Ruling, rule_on
from epidote_operator.spec.field_model import GROUP, VERSION

REFUSED = 422  # as the API server answers to what its own schema refuses

Body = Mapping[str, Any]


def register(
    registry: kopf.OperatorRegistry, dry_runs: DryRuns | None = None, *, kuberay: bool = True
) -> None:
    """Validate every kind of ours; the webhook's path is `/` and the plural.

    With `dry_runs` the API server is asked as well whether the pods can be. `kuberay`: whether we
    may write RayClusters.
    """
    for plural in PLURALS:
        kopf.on.validate(
            GROUP,
            VERSION,
            plural,
            id=plural,
            operations=["CREATE", "UPDATE"],
            ignore_failures=False,
            registry=registry,
        )(_validator(plural, dry_runs, kuberay))


def _validator(plural: str, dry_runs: DryRuns | None, kuberay: bool) -> Any:
    async def validate(
        *,
        name: str | None,
        namespace: str | None,
        new: Body | None,
        old: Body | None,
        warnings: list[str],
        **_: Any,
    ) -> None:
        judge(plural, name or "", new or {}, old, warnings, kuberay=kuberay)
        if dry_runs is not None:
            spec, stored = (new or {}).get("spec", {}), _spec(old)
            ruling = await dry_runs.rule_on(plural, name or "", namespace or "", spec, stored)
            _tell(ruling, warnings)

    return validate


def judge(
    plural: str,
    name: str,
    new: Body,
    old: Body | None,
    warnings: list[str],
    *,
    kuberay: bool = True,
) -> None:
    """Refuse by raising; add to `warnings` what the owner should know.

    Raises:
        kopf.AdmissionError: the message has one line per problem.
    """
    spec = new.get("spec", {})
    _tell(rule_on(plural, name, spec, _spec(old), kuberay=kuberay), warnings)


def _spec(stored: Body | None) -> Body | None:
    return None if stored is None else stored.get("spec", {})


def _tell(ruling: Ruling, warnings: list[str]) -> None:
    warnings.extend(ruling.warnings)
    if ruling.problems:
        raise kopf.AdmissionError(ruling.message, code=REFUSED)
