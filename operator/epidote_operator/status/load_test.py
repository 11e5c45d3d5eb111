"""This file is about a LoadTest's status as its run goes on: waits, runs, has a verdict, or none.

    phase      Complete   SloMet
    Pending    False      Unknown
    Running    False      Unknown
    Finished   True       the verdict: True, False, or Unknown where the run left it open
    Failed     True       False: without a verdict no gate opens

Pure. No text keeps the password of a URL.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from epidote_operator.spec.load_test import (
    LoadTestPhase,
    LoadTestStatus,
    ObjectiveResult,
    Verdict,
)
from epidote_operator.spec.service_status import ConditionStatus
from epidote_operator.spec.shown_urls import without_credentials
from epidote_operator.status.conditions import (
    FALSE,
    TRUE,
    UNKNOWN,
    Finding,
    renewed,
    timestamp,
)

ENDED = (LoadTestPhase.FINISHED, LoadTestPhase.FAILED)
MAX_SUMMARY = 2000  # characters
# The load generator's words; any other one leaves it open.
VERDICTS = {"PASS": Verdict.PASS, "FAIL": Verdict.FAIL}
SLO_MET = {Verdict.PASS: TRUE, Verdict.FAIL: FALSE, Verdict.INCONCLUSIVE: UNKNOWN}


def waiting(before: LoadTestStatus, why: str, now_s: float) -> LoadTestStatus:
    """No Job yet."""
    found = _both(before, "Waiting", why, FALSE, UNKNOWN, now_s)
    return found.model_copy(update={"phase": LoadTestPhase.PENDING})


def running(before: LoadTestStatus, job: str, url: str, now_s: float) -> LoadTestStatus:
    """The Job has just been made."""
    found = _both(before, "Running", f"runs against {url}", FALSE, UNKNOWN, now_s)
    update = {"phase": LoadTestPhase.RUNNING, "job_name": job, "started_at": timestamp(now_s)}
    return found.model_copy(update=update)


def finished(
    before: LoadTestStatus, told: Mapping[str, Any], now_s: float, *, remark: str = ""
) -> LoadTestStatus:
    """`told` is the load generator's verdict, `remark` what its reason doesn't know.

    Raises:
        KeyError, TypeError, ValueError: it is no verdict.
    """
    verdict = VERDICTS.get(told["outcome"], Verdict.INCONCLUSIVE)
    reason = f"{remark}{told['reason']}"
    update = {
        "phase": LoadTestPhase.FINISHED,
        "verdict": verdict,
        "objectives": _objectives(told["objectives"]),
        "finished_at": timestamp(now_s),
    }
    found = _both(before, verdict.value, reason, TRUE, SLO_MET[verdict], now_s)
    return found.model_copy(update=update)


def failed(before: LoadTestStatus, reason: str, message: str, now_s: float) -> LoadTestStatus:
    """It ended without a verdict, or never began."""
    found = _both(before, reason, message, TRUE, FALSE, now_s)
    return found.model_copy(update={"phase": LoadTestPhase.FAILED, "finished_at": timestamp(now_s)})


def reason_of(status: LoadTestStatus) -> str:
    """The word for where the run is: Waiting, Running, the verdict, or why there is none."""
    return next((c.reason for c in status.conditions if c.type == "SloMet"), "")


def _both(
    before: LoadTestStatus,
    reason: str,
    message: str,
    complete: ConditionStatus,
    slo_met: ConditionStatus,
    now_s: float,
) -> LoadTestStatus:
    text = without_credentials(message)[:MAX_SUMMARY]
    known = {condition.type: condition for condition in before.conditions}
    findings: dict[str, Finding] = {
        "Complete": (complete, reason, text),
        "SloMet": (slo_met, reason, text),
    }
    conditions = tuple(
        renewed(kind, finding, known.get(kind), now_s=now_s, generation=None)
        for kind, finding in findings.items()
    )
    return before.model_copy(update={"summary": text, "conditions": conditions})


def _objectives(found: Sequence[Mapping[str, Any]]) -> tuple[ObjectiveResult, ...]:
    return tuple(
        ObjectiveResult(
            class_name=item["class"],
            objective=item["objective"],
            verdict=VERDICTS.get(item["outcome"], Verdict.INCONCLUSIVE),
            # Of no request there is no share.
            attained_percent=None
            if item["attainment"] is None
            else round(100 * item["attainment"], 4),
            required_percent=round(100 * item["ratio"], 4),
            requests=item["num_requests"],
        )
        for item in found
    )
