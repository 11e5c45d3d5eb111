"""This file is about showing a fleet to a person: the answer of GET /admin/fleet as a table."""

from typing import Any

from rich.table import Table
from rich.text import Text

ROLE_ORDER = {"encode": 0, "prefill": 1, "decode": 2, "all": 3}
STATE_STYLES = {"routable": "green", "failed": "red"}
COLUMNS = (
    "worker",
    "role",
    "state",
    "epoch",
    "waiting",
    "running",
    "encoding",
    "KV",
    "TTFT",
    "TPOT",
)


def fleet_table(fleet: dict[str, Any]) -> Table:
    """One row per worker, in the order of the stages."""
    table = Table(title=f"model {fleet['model']}", title_justify="left", box=None, pad_edge=False)
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in COLUMNS[:3] else "right")
    for worker in ordered(fleet["workers"]):
        load = worker["load"]
        table.add_row(
            worker["worker_id"],
            worker["role"],
            Text(worker["state"], style=STATE_STYLES.get(worker["state"], "yellow")),
            str(worker["epoch"]),
            str(load["num_waiting"]),
            str(load["num_running"]),
            str(load["num_encoding"]),
            kv_use(load),
            milliseconds(load["ttft_s"]),
            milliseconds(load["tpot_s"]),
        )
    return table


def fleet_lines(fleet: dict[str, Any]) -> list[str]:
    """The same without any drawing, for pipes: a header, then one line a worker."""
    lines = ["\t".join(COLUMNS)]
    for w in ordered(fleet["workers"]):
        load = w["load"]
        cells = [w["worker_id"], w["role"], w["state"], w["epoch"], load["num_waiting"]]
        cells += [load["num_running"], load["num_encoding"], kv_use(load)]
        cells += [milliseconds(load["ttft_s"]), milliseconds(load["tpot_s"])]
        lines.append("\t".join(str(cell) for cell in cells))
    return lines


def ordered(workers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(workers, key=lambda w: (ROLE_ORDER.get(w["role"], 9), w["worker_id"]))


def kv_use(load: dict[str, Any]) -> str:
    """Share of the KV blocks in use; cached blocks that can be evicted count as free."""
    total = load["num_kv_blocks"]
    if not total:
        return "-"
    return f"{(total - load['num_free_kv_blocks']) / total:.0%}"


def milliseconds(seconds: float) -> str:
    """`-` for zero: none seen."""
    return f"{seconds * 1e3:.1f} ms" if seconds else "-"


def stage_lines(extension: dict[str, Any]) -> list[str]:
    """Who did what for one request: the `epidote` extension of an answer.

    >>> stage_lines({"stages": [{"stage": "prefill", "worker": "w1", "queued_ms": 0.5,
    ...     "busy_ms": 12.0, "num_tokens": 40, "num_bytes": 0}], "ttft_ms": 14.0, "total_ms": 30.0})
    ['  prefill   on w1: 12.0 ms (40 tokens, 0.5 ms queued)', '  first token 14 ms, all 30 ms']
    """
    lines = []
    for stage in extension.get("stages", ()):
        amounts = [f"{stage['num_tokens']} tokens"] if stage["num_tokens"] else []
        amounts += [f"{stage['num_bytes'] / 1024:.0f} KiB"] if stage["num_bytes"] else []
        amounts += [f"{stage['queued_ms']:.1f} ms queued"] if stage["queued_ms"] else []
        detail = f" ({', '.join(amounts)})" if amounts else ""
        lines.append(
            f"  {stage['stage']:9} on {stage['worker']}: {stage['busy_ms']:.1f} ms{detail}"
        )
    total = f"  first token {extension['ttft_ms']:.0f} ms, all {extension['total_ms']:.0f} ms"
    if extension.get("num_resumes"):
        total += f", resumed {extension['num_resumes']} times on other workers"
    return [*lines, total]
