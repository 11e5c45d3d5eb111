"""What a client knows of one worker follows its reports, at the cost of what they change."""

import tracemalloc
from random import Random

from epidote_core.roles import Role, WorkerState
from epidote_core.worker_view import WorkerLoad
from epidote_workers.member import Member
from epidote_workers.messages import StatusReport


def member() -> Member:
    return Member("w", "", on_lost=lambda _: None, rng=Random(0), secret=None)


def report(**given: object) -> StatusReport:
    values = {
        "worker_id": "w", "role": Role.ALL, "state": WorkerState.ROUTABLE, "epoch": 1,
        "node_id": "", "pid": 1, "block_size": 16, "load": WorkerLoad(),
    }  # fmt: skip
    return StatusReport(**(values | given))  # type: ignore[arg-type]


def names(start: int, stop: int) -> frozenset[bytes]:
    return frozenset(number.to_bytes(16) for number in range(start, stop))


def test_the_view_names_what_the_reports_add_up_to() -> None:
    one = member()
    one._note(report(is_whole=True, blocks_added=names(0, 5), media_added=frozenset("xy")))
    assert one.view.block_hashes == names(0, 5)
    one._note(report(blocks_added=names(5, 7), blocks_removed=names(0, 2)))
    one._note(report(media_removed=frozenset("x"), media_added=frozenset("z")))
    assert one.view.block_hashes == names(2, 7)
    assert one.view.media_keys == frozenset("yz")
    one._note(report(is_whole=True, blocks_added=names(9, 10)))
    assert one.view.block_hashes == names(9, 10)
    assert not one.view.media_keys


def test_a_report_touches_the_names_that_it_changes_and_no_others() -> None:
    """200,000 names in a new set take 8 MB; the ten that change, next to nothing."""
    one = member()
    one._note(report(is_whole=True, blocks_added=names(0, 200_000)))
    changes = report(blocks_added=names(300_000, 300_010), blocks_removed=names(0, 10))
    before = one.view.block_hashes
    tracemalloc.start()
    one._note(changes)
    view = one.view
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert view.block_hashes is before, "handed out without a copy"
    assert len(view.block_hashes) == 200_000
    assert peak_bytes < 100_000
