"""This file is about answering the API server's question whether a resource may be stored."""

from collections.abc import Mapping
from typing import Any

import kopf

from epidote_operator.spec.admission import PLURALS, rule_on
from epidote_operator.spec.field_model import GROUP, VERSION

REFUSED = 422  # as the API server answers to what its own schema refuses


def register(registry: kopf.OperatorRegistry) -> None:
    """Validate every kind of ours; the webhook's path is `/` and the plural."""
    for plural in PLURALS:
        kopf.on.validate(
            GROUP,
            VERSION,
            plural,
            id=plural,
            operations=["CREATE", "UPDATE"],
            ignore_failures=False,
            registry=registry,
        )(_validator(plural))


def _validator(plural: str) -> Any:
    def validate(
        *,
        name: str | None,
        new: Mapping[str, Any] | None,
        old: Mapping[str, Any] | None,
        warnings: list[str],
        **_: Any,
    ) -> None:
        judge(plural, name or "", new or {}, old, warnings)

    return validate


def judge(
    plural: str,
    name: str,
    new: Mapping[str, Any],
    old: Mapping[str, Any] | None,
    warnings: list[str],
) -> None:
    """Refuse by raising; add to `warnings` what the owner should know.

    Raises:
        kopf.AdmissionError: the message has one line per problem.
    """
    stored = None if old is None else old.get("spec", {})
    ruling = rule_on(plural, name, new.get("spec", {}), stored)
    warnings.extend(ruling.warnings)
    if ruling.problems:
        raise kopf.AdmissionError(ruling.message, code=REFUSED)
