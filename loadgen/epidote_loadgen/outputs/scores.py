"""This file is about how many answers were right: by category, by cache state, and in traps."""

from collections.abc import Callable, Iterable
from typing import Any

from epidote_loadgen.records import RequestRecord


def scores(records: Iterable[RequestRecord]) -> dict[str, Any]:
    """Right answers of the scored requests; `traps` are those a cache must not take for others."""
    scored = [record for record in records if record.correct is not None]
    return {
        "overall": _score(scored),
        "by_category": _by(scored, lambda record: record.attributes.category),
        "by_modality": _by(scored, lambda record: record.attributes.modality.value),
        "by_cache": _by(scored, lambda record: record.cache),
        "traps": _score([record for record in scored if record.attributes.is_trap]),
        "paraphrases": _score(
            [r for r in scored if r.attributes.group_id and not r.attributes.is_trap]
        ),
    }


def _by(
    records: Iterable[RequestRecord], key: Callable[[RequestRecord], str]
) -> dict[str, dict[str, int]]:
    groups: dict[str, list[RequestRecord]] = {}
    for record in records:
        groups.setdefault(key(record), []).append(record)
    return {name: _score(groups[name]) for name in sorted(groups)}


def _score(records: list[RequestRecord]) -> dict[str, int]:
    return {
        "num_scored": len(records),
        "num_correct": sum(record.correct is True for record in records),
    }
