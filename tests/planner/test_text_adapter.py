"""A replay tool that knows only text, prefill and decode drives the planner."""

import json
from dataclasses import replace

import pytest

from epidote_core.roles import Role
from epidote_planner.fakes import policy
from epidote_planner.text_adapter import TextObservation, TextReplay, to_snapshot


def observation(now_s: float, prefill: int, decode: int, rps: float) -> TextObservation:
    return TextObservation(
        now_s=now_s,
        num_prefill=prefill,
        num_decode=decode,
        arrival_rps=rps,
        input_tokens=3000.0,
        output_tokens=150.0,
        input_tokens_p99=8000.0,
        decode_running=int(rps * 5),
    )


def test_tool_that_applies_targets_reaches_a_fleet_that_serves_the_load() -> None:
    session = TextReplay(policy())
    prefill = decode = 1
    for tick in range(1, 30):
        targets = session.step(observation(10.0 * tick, prefill, decode, 20.0))
        prefill, decode = targets.prefill, targets.decode
    assert prefill > 18  # 20 requests/s of 0.9 s each
    assert decode >= 1
    assert targets.reason
    assert session.step(observation(310.0, prefill, decode, 20.0)).prefill == prefill


def test_session_continues_in_another_process_from_its_json() -> None:
    one = TextReplay(policy())
    one.step(observation(10.0, 2, 2, 5.0))
    two = TextReplay(policy(), json.loads(json.dumps(one.memory)))
    seen = observation(20.0, 2, 2, 6.0)
    assert one.step(seen) == two.step(seen)


def test_no_encoder_is_ever_asked_for() -> None:
    assert all(w.role is not Role.ENCODE for w in to_snapshot(observation(1.0, 2, 3, 1.0)).workers)
    session = TextReplay(policy())
    session.step(observation(10.0, 1, 1, 30.0))
    assert "encode" not in session.step(observation(20.0, 1, 1, 30.0)).text


def test_surplus_prefill_worker_becomes_a_decoder_without_growing_the_pool() -> None:
    session = TextReplay(policy())
    targets = session.step(replace(observation(10.0, 6, 1, 1.0), decode_running=90))
    assert targets.decode > 1
    assert targets.prefill + targets.decode == 7


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_prefill", -1), ("arrival_rps", float("nan")), ("input_tokens", float("inf"))],
)
def test_impossible_observation_is_refused_by_its_field(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=field):
        replace(observation(10.0, 1, 1, 1.0), **{field: value})
