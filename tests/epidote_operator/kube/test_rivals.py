"""Releases that watch the same namespaces: whatever happens, at most one leads, and one does."""

import types
from collections.abc import Coroutine, Generator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epidote_operator.kube.errors import ApiRefused, Conflict
from epidote_operator.kube.leader import LEASE_S, LeaderElection
from epidote_operator.kube.rivals import API, LABEL, WATCHES, Rivals, overlap, told

EVERYWHERE: tuple[str, ...] = ()


class Clock:
    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@types.coroutine
def pause() -> Generator[None, None, None]:
    """Others may go on here."""
    yield


class Server:
    """Stores Leases as an API server does, a moment after it was asked and before it answers."""

    def __init__(self) -> None:
        self.leases: dict[tuple[str, str], dict[str, Any]] = {}
        self.version = 0
        self.num_lists = 0
        self.may_list: set[str | None] = set()  # None: everywhere

    def store(self, key: tuple[str, str], lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        metadata = {**lease["metadata"], "namespace": key[0], "name": key[1]}
        metadata["resourceVersion"] = str(self.version)
        metadata.setdefault("creationTimestamp", f"{self.version:09}")
        self.leases[key] = {**lease, "metadata": metadata}
        return self.leases[key]

    async def get(self, path: str) -> dict[str, Any] | None:
        await pause()
        found = self.leases.get(key_of(path))
        await pause()
        return found

    async def create(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        await pause()
        key = (path.split("/")[5], body["metadata"]["name"])
        if key in self.leases:
            raise Conflict("there", status=409, reason="AlreadyExists")
        made = self.store(key, body)
        await pause()
        return made

    async def merge(self, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        await pause()
        before = self.leases.get(key_of(path))
        if before is None:
            return None
        if before["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict("changed", status=409, reason="Conflict")
        after = {**before, "metadata": {**before["metadata"], **body["metadata"]}}
        made = self.store(key_of(path), {**after, "spec": {**before["spec"], **body["spec"]}})
        await pause()
        return made

    async def request(self, method: str, path: str, params: dict[str, str]) -> dict[str, Any]:
        assert (method, params) == ("GET", {"labelSelector": LABEL})
        await pause()
        self.num_lists += 1
        parts = path.split("/")
        namespace = parts[5] if "namespaces" in parts else None
        if None not in self.may_list and namespace not in self.may_list:
            raise ApiRefused("no", status=403, reason="Forbidden")
        found = [
            lease
            for key, lease in self.leases.items()
            if namespace in (None, key[0]) and LABEL in lease["metadata"].get("labels", {})
        ]
        await pause()
        return {"items": found}


def key_of(path: str) -> tuple[str, str]:
    parts = path.split("/")
    return parts[5], parts[7]


class Cluster:
    """Operators of several releases, each stepped from one pause to the next."""

    def __init__(self, *watched: tuple[str, ...]) -> None:
        self.clock, self.server = Clock(), Server()
        self.server.may_list = {None}
        self.elections = [
            self.election(f"release-{number}", namespaces)
            for number, namespaces in enumerate(watched)
        ]
        self._under_way: list[Coroutine[Any, Any, None] | None] = [None] * len(watched)

    def election(self, namespace: str, watched: tuple[str, ...], who: str = "a") -> LeaderElection:
        own = (namespace, "epidote-operator")
        api: Any = self.server
        return LeaderElection(
            api=api,
            namespace=namespace,
            name=own[1],
            identity=f"{namespace}/{who}",
            monotonic=self.clock,
            rivals=Rivals(api=api, namespaces=watched, own=own, monotonic=self.clock),
        )

    def step(self, number: int) -> None:
        """One operator goes on until its next pause."""
        work = self._under_way[number] or self.elections[number].attempt()
        self._under_way[number] = work
        try:
            work.send(None)
        except (StopIteration, Conflict):
            self._under_way[number] = None

    def crash(self, number: int) -> None:
        """Its process is killed, and another one starts at once."""
        if (work := self._under_way[number]) is not None:
            work.close()
        self._under_way[number] = None
        old = self.elections[number]
        assert old.rivals is not None
        who = old.identity.partition("/")[2] + "'"
        self.elections[number] = self.election(old.namespace, old.rivals.namespaces, who)

    def attempt(self, number: int) -> None:
        """A whole attempt, beside nobody's."""
        run(self.elections[number].attempt())

    @property
    def leading(self) -> list[int]:
        return [number for number, each in enumerate(self.elections) if each.is_leader]


def run(work: Coroutine[Any, Any, None]) -> None:
    try:
        while True:
            work.send(None)
    except StopIteration:
        return


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        ([], [], True),
        ([], ["a"], True),
        (["a"], ["b", "a"], True),
        (["a"], ["b"], False),
        (["a", "b"], ["c", "d"], False),
    ],
)
def test_namespaces_overlap_where_one_is_watched_by_both(
    ours: list[str], theirs: list[str], expected: bool
) -> None:
    assert overlap(told(ours), told(theirs)) is overlap(told(theirs), told(ours)) is expected


def test_who_came_first_leads_and_the_other_says_why_it_does_not() -> None:
    cluster = Cluster(EVERYWHERE, ("prod",))
    cluster.attempt(0)
    cluster.attempt(1)
    assert cluster.leading == [0]
    cluster.clock.now_s += 3.0
    cluster.attempt(0)
    cluster.attempt(1)
    why = cluster.elections[1].stands_by
    assert "release-0/epidote-operator" in why
    assert "watches every namespace; this one watches prod" in why
    assert cluster.elections[0].stands_by == ""
    assert ("release-1", "epidote-operator") not in cluster.server.leases, "it wrote nothing"


def test_a_lease_that_is_given_up_or_not_renewed_is_followed_by_the_other_release() -> None:
    for dies in (True, False):
        cluster = Cluster(EVERYWHERE, EVERYWHERE)
        cluster.attempt(0)
        cluster.attempt(1)
        if dies:
            cluster.clock.now_s += LEASE_S
        else:
            run(cluster.elections[0].release())
        cluster.attempt(1)
        assert cluster.leading == [1]
        assert cluster.elections[1].stands_by == ""
        cluster.attempt(0)
        assert cluster.leading == [1], "who comes back waits its turn"


def test_releases_that_share_no_namespace_both_lead() -> None:
    cluster = Cluster(("a", "b"), ("c",))
    cluster.attempt(0)
    cluster.attempt(1)
    assert cluster.leading == [0, 1]


def test_of_two_that_take_their_leases_at_once_the_older_lease_leads() -> None:
    cluster = Cluster(EVERYWHERE, EVERYWHERE)
    while len(cluster.server.leases) < 2:  # both have looked before either wrote
        cluster.step(0)
        cluster.step(1)
    for _ in range(40):
        cluster.step(1)
        cluster.step(0)
    assert cluster.leading == [0]


def test_who_leads_asks_for_nobody_elses_lease() -> None:
    cluster = Cluster(EVERYWHERE)
    cluster.attempt(0)
    before = cluster.server.num_lists
    for _ in range(10):
        cluster.clock.now_s += 3.0
        cluster.attempt(0)
    assert cluster.leading == [0]
    assert cluster.server.num_lists == before


def test_without_the_right_to_list_everywhere_leases_where_it_watches_are_seen() -> None:
    cluster = Cluster(("release-1", "a"), ("a",))
    cluster.server.may_list = {"release-0", "release-1", "a"}
    cluster.attempt(1)
    cluster.attempt(0)
    assert cluster.leading == [1]


def test_a_lease_says_what_its_operator_watches() -> None:
    cluster = Cluster(("b", "a"))
    cluster.attempt(0)
    metadata = cluster.server.leases["release-0", "epidote-operator"]["metadata"]
    assert metadata["labels"] == {LABEL: "true"}
    assert metadata["annotations"] == {WATCHES: "a,b"}
    assert API == "coordination.k8s.io/v1"


STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["step"] * 12 + ["crash"]),
        st.sampled_from([0.0] * 8 + [1.0, 4.0, 9.0, LEASE_S]),
    ),
    max_size=250,
)


@settings(max_examples=400, deadline=None)
@given(STEPS)
def test_never_do_two_lead_where_both_watch_and_in_the_end_one_does(
    steps: list[tuple[int, str, float]],
) -> None:
    """Any interleaving of their calls, any pause between two, and any crash."""
    cluster = Cluster(EVERYWHERE, ("a", "b"), ("a",))
    for number, what, passes_s in steps:
        cluster.crash(number) if what == "crash" else cluster.step(number)
        assert len(cluster.leading) <= 1
        cluster.clock.now_s += passes_s
        assert len(cluster.leading) <= 1
    for _ in range(600):
        for number in range(3):
            cluster.step(number)
        cluster.clock.now_s += 0.25
        assert len(cluster.leading) <= 1
    assert len(cluster.leading) == 1
