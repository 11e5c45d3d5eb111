"""Summaries: what counts as good, and that parts add up to the whole."""

from array import array

from hypothesis import given
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_loadgen.measures.summary import TOTAL, Gatherer, summarise
from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.slo import Match, Objective, SloClass, SloTable

SLO = SloTable(
    classes=(
        SloClass(
            name="images",
            match=Match(modalities=frozenset({Modality.IMAGE})),
            objectives=(Objective(ttft_s=2.0),),
        ),
        SloClass(
            name="text",
            match=Match(modalities=frozenset({Modality.TEXT})),
            objectives=(Objective(ttft_s=0.5, tpot_s=0.05), Objective(e2e_s=3.0)),
        ),
    )
)


def record(
    index: int,
    *,
    ttft_s: float = 0.1,
    status: RequestStatus = RequestStatus.OK,
    modality: Modality = Modality.TEXT,
    gap_s: float = 0.01,
) -> RequestRecord:
    return RequestRecord(
        index=index,
        class_name="any",
        attributes=RequestAttributes(modality=modality),
        status=status,
        intended_send_s=float(index),
        sent_s=index + 0.001,
        end_s=index + ttft_s + 4 * gap_s,
        content_offsets_s=array("f", [ttft_s + i * gap_s for i in range(5)]),
        error="" if status is RequestStatus.OK else str(status),
        output_tokens=5,
    )


def test_each_class_is_judged_by_its_own_limits() -> None:
    found = summarise(
        [record(0, ttft_s=1.0), record(1, ttft_s=1.0, modality=Modality.IMAGE), record(2)], SLO
    )
    assert (found["text"].num_good, found["text"].num_judged) == (1, 2)
    assert (found["images"].num_good, found["images"].num_judged) == (1, 1)
    assert found[TOTAL].attainment == 2 / 3


def test_a_request_of_no_class_is_counted_but_not_judged() -> None:
    found = summarise([record(0, modality=Modality.AUDIO)], SLO)
    assert found[TOTAL].num_requests == 1
    assert found[TOTAL].num_judged == 0


def test_a_failed_request_is_a_miss_even_if_its_first_token_was_in_time() -> None:
    found = summarise([record(0, status=RequestStatus.RESET), record(1)], SLO)["text"]
    assert found.attainment == 0.5
    assert found.by_status[RequestStatus.RESET] == 1
    assert found.by_error["reset"] == 1
    assert found.ttft.count == 2  # it did get a first token
    assert found.e2e.count == 1  # and never ended


RECORDS = st.lists(
    st.builds(
        record,
        st.integers(0, 1000),
        ttft_s=st.floats(0.01, 4.0),
        gap_s=st.floats(0.001, 0.2),
        status=st.sampled_from(RequestStatus),
        modality=st.sampled_from(Modality),
    ),
    max_size=30,
)


@given(RECORDS, RECORDS)
def test_gatherers_of_two_processes_merge_into_one(
    left: list[RequestRecord], right: list[RequestRecord]
) -> None:
    gatherers = [Gatherer(SLO), Gatherer(SLO)]
    for gatherer, records in zip(gatherers, (left, right), strict=True):
        for one in records:
            gatherer.add(one)
    gatherers[0].merge(gatherers[1])
    assert gatherers[0].summaries == summarise(right + left, SLO)
