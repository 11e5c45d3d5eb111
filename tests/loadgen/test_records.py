"""What a record says of a request, and that it says the same in another process."""

import pickle
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epidote_core.modality import Modality
from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus


def record(offsets_s: list[float], *, output_tokens: int | None = None) -> RequestRecord:
    return RequestRecord(
        index=7,
        class_name="chat",
        attributes=RequestAttributes(modality=Modality.IMAGE, num_images=2, image_ids=("a", "b")),
        status=RequestStatus.OK,
        intended_send_s=1.0,
        sent_s=1.5,
        end_s=4.0,
        content_offsets_s=array("f", offsets_s),
        output_tokens=output_tokens,
        num_retries=1,
    )


def test_the_time_per_token_uses_the_servers_count() -> None:
    assert record([0.5, 1.0, 2.0]).tpot_s == pytest.approx(0.75)
    assert record([0.5, 1.0, 2.0], output_tokens=7).tpot_s == pytest.approx(0.25)


def test_tokens_that_came_in_one_event_have_no_time_between_them() -> None:
    assert record([0.5], output_tokens=5).tpot_s is None
    assert record([0.5]).tpot_s is None


@given(st.lists(st.floats(0.0, 1e6, width=32), max_size=20), st.integers(0, 99) | st.none())
def test_a_record_is_the_same_in_another_process(
    offsets_s: list[float], output_tokens: int | None
) -> None:
    one = record(offsets_s, output_tokens=output_tokens)
    again = pickle.loads(pickle.dumps(one))
    assert again == one
    assert again.attributes.modality is Modality.IMAGE
