"""This file is about one request as a row: the columns of CSV, Parquet and the JSON document."""

from collections.abc import Iterable
from typing import Any

from epidote_loadgen.records import RequestRecord
from epidote_loadgen.slo import SloTable, high_gap_s

# Name -> kind of value; every one may be empty. The order is that of the files.
COLUMNS: dict[str, type] = {
    "index": int,
    "class": str,
    "slo_class": str,
    "status": str,
    "good": bool,
    "intended_send_s": float,
    "sent_s": float,
    "end_s": float,
    "lateness_s": float,
    "waited_for_cap_s": float,
    "connect_s": float,
    "ttft_s": float,
    "tpot_s": float,
    "itl_p99_s": float,
    "itl_max_s": float,
    "e2e_s": float,
    "modality": str,
    "num_images": int,
    "tenant": str,
    "category": str,
    "planned_prompt_tokens": int,
    "max_output_tokens": int,
    "prompt_tokens": int,
    "cached_tokens": int,
    "output_tokens": int,
    "num_events": int,
    "prefix_id": str,
    "group_id": str,
    "is_trap": bool,
    "session_id": str,
    "turn": int,
    "cache": str,
    "correct": bool,
    "http_status": int,
    "num_retries": int,
    "error": str,
}
DIGITS = 6  # of seconds: microseconds


def row(record: RequestRecord, slo: SloTable) -> dict[str, Any]:
    """The request under `COLUMNS`. `good`: met every objective that judges it; None: none does."""
    slo_class = slo.class_of(record)
    gaps = record.itl_s
    attributes = record.attributes
    good = slo_class.good(record) if slo_class else None
    return {
        "index": record.index,
        "class": record.class_name,
        "slo_class": slo_class.name if slo_class else "",
        "status": record.status.value,
        "good": good,
        "intended_send_s": _short(record.intended_send_s),
        "sent_s": _short(record.sent_s),
        "end_s": _short(record.end_s),
        "lateness_s": _short(record.lateness_s),
        "waited_for_cap_s": _short(record.waited_for_cap_s),
        "connect_s": _short(record.connect_s),
        "ttft_s": _short(record.ttft_s),
        "tpot_s": _short(record.tpot_s),
        "itl_p99_s": _short(high_gap_s(gaps)),
        "itl_max_s": _short(max(gaps, default=None)),
        "e2e_s": _short(record.e2e_s),
        "modality": attributes.modality.value,
        "num_images": attributes.num_images,
        "tenant": attributes.tenant,
        "category": attributes.category,
        "planned_prompt_tokens": attributes.prompt_tokens,
        "max_output_tokens": attributes.max_output_tokens,
        "prompt_tokens": record.prompt_tokens,
        "cached_tokens": record.cached_tokens,
        "output_tokens": record.output_tokens,
        "num_events": len(record.content_offsets_s),
        "prefix_id": attributes.prefix_id,
        "group_id": attributes.group_id,
        "is_trap": attributes.is_trap,
        "session_id": attributes.session_id,
        "turn": attributes.turn,
        "cache": record.cache,
        "correct": record.correct,
        "http_status": record.http_status,
        "num_retries": record.num_retries,
        "error": record.error,
    }


def columns(records: Iterable[RequestRecord], slo: SloTable) -> dict[str, list[Any]]:
    """All requests, column by column, in the records' order."""
    table: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    for record in records:
        for name, value in row(record, slo).items():
            table[name].append(value)
    return table


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)
