"""This file is about starts that are given up: refusals at once, failures when nothing follows."""

from epidote_workers.start_watch import STUCK_S, StartWatch, last_line

TRACEBACK = "A replica failed to start. Retrying.\nTraceback:\n  File …\n{}\n\n"
REFUSED = TRACEBACK.format("epidote_core.errors.InvalidRequest: quantization: on a CPU")
BROKEN = TRACEBACK.format("OSError: [Errno 5] Input/output error")


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_a_worker_refuses_is_not_tried_again() -> None:
    assert StartWatch().look(1, REFUSED) == "quantization: on a CPU"


def test_starts_without_a_failure_take_as_long_as_they_take() -> None:
    clock = Clock()
    watch = StartWatch(clock)
    for clock.now_s in (0.0, 1e4, 1e5):
        assert watch.look(0, "") is None


def test_failures_are_given_up_once_no_worker_has_followed_for_long() -> None:
    clock = Clock()
    watch = StartWatch(clock)
    assert watch.look(0, "") is None
    for clock.now_s in (1000.0, 1000.0 + STUCK_S):
        assert watch.look(0, BROKEN) is None
    clock.now_s += 1.0
    assert watch.look(2, BROKEN) is None, "two are ready"
    clock.now_s += STUCK_S
    assert watch.look(2, BROKEN) is None
    clock.now_s += 1.0
    assert watch.look(2, BROKEN) == "OSError: [Errno 5] Input/output error"


def test_a_message_without_words_has_no_last_line() -> None:
    assert last_line(" \n\n") == ""
