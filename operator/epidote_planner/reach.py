"""This file is about promises that no fleet can keep, however many workers it has.

More workers end queues; they do not make one prefill or one decode step faster. Where that alone
takes longer than the SLO allows, the answer is another SLO, another model or other hardware.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from epidote_planner.capacity import GroupModel
from epidote_planner.workload import RequestClass


class Promise(StrEnum):
    """The two latencies of an SLO."""

    TTFT = "TTFT"
    TPOT = "TPOT"


@dataclass(frozen=True, kw_only=True)
class Unreachable:
    """The promise, and one sentence that says what alone takes too long."""

    promise: Promise
    text: str


def unreachable(model: GroupModel) -> Unreachable | None:
    """Whether more of the requests than the quantile lets miss are too slow on idle workers."""
    return _ttft(model) or _tpot(model)


def _ttft(model: GroupModel) -> Unreachable | None:
    late = [item for item in model.classes if model.best_slack_s(item) < 0.0]
    if not _too_many(late, model):
        return None
    item = max(late, key=model.best_slack_s)  # the least of those that are late
    parts = {"its prefill": model.prefill_s(item)}
    if item.images > 0.0:
        moved_s = model.profile.transfer.embeddings_s(item.image_tokens)
        parts = {
            "one image's encode": model.encode_s(item, round(item.images + 1)),
            "the transfer": moved_s,
            **parts,
        }
    alone_s = item.slo.ttft_s - model.best_slack_s(item)
    told = ", ".join(f"{name} {_time(took_s)}" for name, took_s in parts.items() if took_s > 0.0)
    return Unreachable(
        promise=Promise.TTFT,
        text=(
            f"TTFT {_time(item.slo.ttft_s)} can't be met by any number of workers: a prompt of "
            f"{item.prompt_tokens:.0f} tokens takes {_time(alone_s)} alone ({told}), and "
            f"{_share(late, model):.0%} of the requests are like it or longer."
        ),
    )


def _tpot(model: GroupModel) -> Unreachable | None:
    late = [item for item in model.classes if _alone_s(model, item) > item.slo.tpot_s]
    if not _too_many(late, model):
        return None
    item = min(late, key=lambda item: _alone_s(model, item))
    return Unreachable(
        promise=Promise.TPOT,
        text=(
            f"TPOT {_time(item.slo.tpot_s)} can't be met by any number of workers: a decode step "
            f"takes {_time(_alone_s(model, item))} even for one sequence alone on its worker."
        ),
    )


def _alone_s(model: GroupModel, item: RequestClass) -> float:
    context = item.prompt_tokens + item.output_tokens / 2
    return model.factors.decode * model.profile.decode.seconds(1.0, context)


def _share(some: Iterable[RequestClass], model: GroupModel) -> float:
    total = sum(item.rps for item in model.classes)
    return sum(item.rps for item in some) / total if total > 0.0 else 0.0


def _too_many(late: list[RequestClass], model: GroupModel) -> bool:
    quantile = max((item.slo.quantile for item in late), default=1.0)
    return _share(late, model) > 1.0 - quantile + 1e-9


def _time(seconds: float) -> str:
    """
    >>> _time(0.05), _time(12.0)
    ('50 ms', '12 s')
    """
    return f"{seconds * 1000:.3g} ms" if seconds < 1.0 else f"{seconds:.3g} s"
