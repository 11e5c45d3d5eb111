"""This file is about whose silence it was: a dead peer's, or a pause of this process itself."""

from hypothesis import given
from hypothesis import strategies as st

from epidote_workers.rpc.silence import MAX_PAUSES, PAUSE_PINGS, PING_EVERY_S, Silence

PAUSE_S = PAUSE_PINGS * PING_EVERY_S


def after(lateness_s: list[float], silence: Silence, now_s: float = 0.0) -> tuple[float, float]:
    """(the silence, the clock) after beats that were this late, in s, and nothing was heard."""
    silent_s = 0.0
    for late_s in lateness_s:
        due_s = now_s + PING_EVERY_S
        now_s = due_s + late_s
        silent_s = silence.length_s(now_s, due_s)
    return silent_s, now_s


def test_beats_in_time_count_in_full() -> None:
    assert after([0.0] * 20, Silence(0.0)) == (20 * PING_EVERY_S, 20 * PING_EVERY_S)


def test_a_steady_lag_is_not_forgiven() -> None:
    silent_s, now_s = after([PAUSE_S] * 20, Silence(0.0))
    assert silent_s == now_s


def test_a_pause_is_no_silence_of_the_peers() -> None:
    assert after([0.0, 3600.0, 0.0], Silence(0.0))[0] == 3 * PING_EVERY_S


def test_pauses_without_a_word_between_are_forgiven_a_few_times() -> None:
    silent_s, _ = after([100.0] * (MAX_PAUSES + 1), Silence(0.0))
    assert silent_s == 100.0 + (MAX_PAUSES + 1) * PING_EVERY_S


def test_a_word_ends_the_silence_and_the_count_of_pauses() -> None:
    silence = Silence(0.0)
    _, now_s = after([100.0] * MAX_PAUSES, silence)
    silence.end(now_s)
    assert after([100.0], silence, now_s)[0] == PING_EVERY_S


def test_what_was_heard_after_the_pause_leaves_nothing_to_forgive() -> None:
    silence = Silence(0.0)
    for hour_s in range(3600, 3600 * (MAX_PAUSES + 2), 3600):
        silence.end(float(hour_s))
        assert silence.length_s(float(hour_s), hour_s - 3000.0) == 0.0


@given(st.lists(st.floats(0.0, 60.0), max_size=40))
def test_a_dead_peer_is_at_most_a_few_pauses_less_silent_than_the_clock_says(
    lateness_s: list[float],
) -> None:
    silent_s, now_s = after(lateness_s, Silence(0.0))
    pauses_s = [late_s for late_s in lateness_s if late_s > PAUSE_S][:MAX_PAUSES]
    assert silent_s >= now_s - sum(pauses_s) - 1e-6
