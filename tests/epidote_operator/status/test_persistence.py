"""What of a status is sent, and what a heir finds."""

from epidote_operator.spec.load_test import LoadTestPhase, LoadTestStatus
from epidote_operator.status.persistence import (
    MEMORY_S,
    dumped,
    later,
    newest,
    read_memory,
    worthwhile_patch,
)
from epidote_planner import PlannerMemory


def test_empty_texts_are_left_out_and_given_ones_are_not() -> None:
    """Kubernetes 1.20 takes them for nulls, and refuses a status for having one."""
    sent = dumped(LoadTestStatus(phase=LoadTestPhase.RUNNING, summary="runs"))
    assert sent["summary"] == "runs"
    assert "" not in sent.values()
    assert "reportConfigMap" not in sent


def test_a_memory_alone_is_news_when_it_is_old_or_holds_a_turning_point() -> None:
    def status(memory: PlannerMemory) -> dict[str, object]:
        return {"workers": 4, "memory": memory.to_json()}

    known = status(PlannerMemory(at_s=100.0))
    assert worthwhile_patch(known, status(PlannerMemory(at_s=101.0))) == {}
    assert worthwhile_patch(known, status(PlannerMemory(at_s=100.0 + MEMORY_S)))
    overloaded = PlannerMemory(at_s=101.0, overloaded_since_s=101.0)
    assert worthwhile_patch(known, status(overloaded))


def test_a_spoilt_memory_is_a_fresh_start_and_the_later_one_counts() -> None:
    spoilt = read_memory({"version": 1, "modalities": "?"})
    assert spoilt == PlannerMemory()
    ours = PlannerMemory(at_s=5.0)
    assert later(spoilt, ours) is ours
    assert later(PlannerMemory(at_s=6.0), ours).at_s == 6.0


def test_what_we_wrote_last_is_believed_before_a_cache_that_lags() -> None:
    def resource(version: str, uid: str = "u", **status: int) -> dict[str, object]:
        return {"metadata": {"uid": uid, "resourceVersion": version}, "status": status}

    cached, ours = resource("7", workers=3), resource("9", workers=4)
    assert newest(cached, ours)["status"] == {"workers": 4}
    assert newest(resource("10", workers=5), ours)["status"] == {"workers": 5}
    assert newest(resource("7", uid="another"), ours)["status"] == {}
