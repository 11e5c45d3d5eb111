"""Sampling parameters refuse what no sampler can honour, and name the field."""

import pytest

from epidote_core.errors import InvalidRequest
from epidote_core.sampling import SamplingParams


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", 2.1),
        ("temperature", float("nan")),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", 1e-46),
        ("min_p", 1.5),
        ("presence_penalty", 2.5),
        ("frequency_penalty", -3.0),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", 1e-40),
        ("repetition_penalty", 10.5),
        ("logit_bias", ((1, float("inf")),)),
        ("seed", 2**63),
        ("min_tokens", 9),
        ("logprobs", 21),
        ("stop", ("",)),
        ("stop", ("x",) * 17),
    ],
)
def test_a_value_out_of_range_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(InvalidRequest) as refused:
        SamplingParams(**{"max_tokens": 8, field: value})  # type: ignore[arg-type]
    assert refused.value.field == field
    assert repr(value) in str(refused.value)


def test_temperature_zero_is_greedy() -> None:
    assert SamplingParams(max_tokens=1, temperature=0.0).is_greedy
    assert not SamplingParams(max_tokens=1, temperature=0.01).is_greedy
