"""What a process tells its parent: in pieces, all of it, in order."""

import asyncio
import multiprocessing

from epidote_loadgen.records import RequestAttributes, RequestRecord, RequestStatus
from epidote_loadgen.runner.outbox import SLICE, Outbox
from epidote_loadgen.runner.part import Glance


def glance(first: int, count: int) -> Glance:
    records = tuple(
        RequestRecord(
            index=first + i,
            class_name="chat",
            attributes=RequestAttributes(),
            status=RequestStatus.OK,
            intended_send_s=0.0,
        )
        for i in range(count)
    )
    return Glance(
        part=0,
        at_s=1.0,
        records=records,
        num_sent=count,
        num_in_flight=0,
        num_waiting=0,
        cpu_utilization=0.0,
        loop_lag_s=0.0,
    )


def test_a_glance_with_many_records_arrives_in_pieces_and_whole() -> None:
    ours, theirs = multiprocessing.Pipe()

    async def main() -> None:
        outbox = Outbox(theirs)
        outbox.put(glance(0, 2 * SLICE + 3))
        outbox.put("ready")
        outbox.put(glance(2 * SLICE + 3, 0))
        found: list[object] = []
        while len(found) < 5:
            await asyncio.sleep(0.001)
            while ours.poll():
                found.append(ours.recv())
        told = [message for message in found if isinstance(message, Glance)]
        assert [len(message.records) for message in told] == [SLICE, SLICE, 3, 0]
        indices = [record.index for message in told for record in message.records]
        assert indices == list(range(2 * SLICE + 3))
        assert found[3] == "ready"

    asyncio.run(main())


def test_what_still_waits_at_the_end_is_flushed_though_a_send_is_due() -> None:
    ours, theirs = multiprocessing.Pipe()

    async def main() -> Outbox:
        outbox = Outbox(theirs)
        outbox.due_s = lambda: 0.0  # always overdue: no gap to write in
        outbox.put(glance(0, SLICE + 1))
        await asyncio.sleep(0.0)
        return outbox

    asyncio.run(main()).flush()
    assert [len(ours.recv().records) for _ in range(2)] == [SLICE, 1]
