"""A fleet waits for its head, and not for one that another head has taken the place of."""

import socket
import time

from epidote_workers.head_watch import HeadWatch, address_of, is_listening


class Names:
    """What a name leads to, and who listens there."""

    def __init__(self) -> None:
        self.address: str | None = "10.0.0.5"
        self.listening = {"10.0.0.5"}

    def watch(self) -> HeadWatch:
        return HeadWatch(
            "head",
            6379,
            pause_s=0.01,
            resolve=lambda host: self.address,
            listens=lambda host, port: host in self.listening,
        )


def test_a_head_that_is_away_or_back_at_its_address_is_waited_for() -> None:
    names = Names()
    watch = names.watch()
    for names.address, names.listening in (
        ("10.0.0.5", {"10.0.0.5"}),
        ("10.0.0.5", set()),
        (None, set()),
        ("10.0.0.9", {"10.0.0.5"}),  # a new one that does not listen yet
    ):
        watch.look()
        assert not watch.is_replaced


def test_another_head_under_the_name_is_noticed() -> None:
    names = Names()
    watch = names.watch()
    watch.start()
    names.address = None
    names.address, names.listening = "10.0.0.9", {"10.0.0.9"}
    deadline_s = time.monotonic() + 60.0
    while not watch.is_replaced:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)


def test_an_address_and_a_listener_are_asked_of_the_network() -> None:
    assert address_of("127.0.0.1") == "127.0.0.1"
    assert address_of("no-such-name.invalid") is None
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert is_listening("127.0.0.1", port)
    assert not is_listening("127.0.0.1", port)
