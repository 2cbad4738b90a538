"""Totals count once, and are made whole: whatever is lost on the way, and whatever the server loses."""

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from async_tracker.instance.journal import Journal
from async_tracker.instance.totals import Totals
from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store
from async_tracker.store.counters import TotalsBatch
from async_tracker.store.writes import Beat, Status


@dataclass
class Server:
    """Adds a batch after the one that comes before it, as ``beat.lua`` does, which the tests of transitions hold to it."""

    newest: int = 0
    stats: Counter[str] = field(default_factory=Counter)

    def beat(self, batch: TotalsBatch | None) -> int:
        if batch is not None and batch.after == self.newest:
            self.stats.update(batch.grown)
            self.newest = batch.number
        return self.newest

    def copy(self) -> "Server":
        return Server(self.newest, Counter(self.stats))


class Scene:
    """An instance that counts and beats, and the server that it is told to."""

    def __init__(self) -> None:
        self.journal = Journal(wake=lambda: None)
        self.totals = Totals(journal=self.journal)
        self.server = Server()
        self.copies = [Server()]
        self.counted = 0

    def count(self, function: str = "send") -> None:
        self.journal.counts.of(function, None)["failed"] += 1
        self.counted += 1

    def beat(self, *, request: bool = True, reply: bool = True) -> None:
        batch = next(iter(self.totals.take()), None)
        self.totals.is_sent(batch)
        if request:
            newest = self.server.beat(batch)
            if reply:
                self.totals.heard(newest)

    def settle(self) -> int:
        """Beat until Redis has all, and tell how much that is."""
        for _ in range(10):
            self.beat()
            while self.totals.pending:
                self.beat()
        return sum(self.server.stats.values())


STEPS = st.sampled_from(["count a", "count b", "count c", "count all", "beat", "beat", "request lost", "reply lost"])


def step(scene: Scene, what: str) -> None:
    if what.startswith("count"):
        for function in "abcde" if what == "count all" else what[-1]:
            scene.count(function)
    else:
        scene.beat(request=what != "request lost", reply=what == "beat")


@given(st.lists(st.one_of(STEPS, st.sampled_from(["replicated", "fails over", "loses all", "declared dead"])), max_size=60))
def test_a_server_that_loses_its_newest_writes_or_all_of_them_has_every_count_again_and_none_twice(history: list[str]):
    """A failover leads to what the replica had, which is never behind where an earlier one led to."""
    scene = Scene()
    replica, left_behind = Server(), 0
    for what in history:
        if what == "replicated":
            replica = scene.server.copy()
        elif what == "fails over":
            scene.server = replica.copy()
        elif what == "loses all":
            scene.server, replica = Server(), Server()
        elif what == "declared dead":
            left_behind += scene.settle()
            scene.totals.leave_behind()
            scene.server, replica = Server(), Server()
        else:
            step(scene, what)
    assert scene.settle() + left_behind == scene.counted


@given(
    st.lists(st.one_of(STEPS, st.sampled_from(["copied", "loses all", "settled"]), st.integers(0, 3)), max_size=40),
    st.integers(1, 3),
    st.integers(5, 40),
)
def test_a_server_that_was_thought_to_be_lost_and_returns_counts_nothing_twice(history: list[str | int], in_a_batch: int, remembered: int):
    """Whichever copy of any age the instance is led to, in any order, and in the middle of being told everything."""
    scene = Scene()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("async_tracker.instance.totals.COUNTERS_IN_A_BATCH", in_a_batch)
        patched.setattr("async_tracker.instance.totals.COUNTERS_REMEMBERED", remembered)
        for what in history:
            if isinstance(what, int):
                scene.server = scene.copies[what % len(scene.copies)].copy()
            elif what == "copied":
                scene.copies.append(scene.server.copy())
            elif what == "loses all":
                scene.server = Server()
            elif what == "settled":
                scene.settle()
            else:
                step(scene, what)
        assert scene.settle() <= scene.counted


@pytest.mark.parametrize("told", range(4))
def test_a_server_that_returns_while_another_is_told_everything_is_not_told_it_again(monkeypatch: pytest.MonkeyPatch, told: int):
    monkeypatch.setattr("async_tracker.instance.totals.COUNTERS_IN_A_BATCH", 2)
    monkeypatch.setattr("async_tracker.instance.totals.COUNTERS_REMEMBERED", 8)
    scene = Scene()
    for function in "abcde":
        scene.count(function)
    scene.settle()
    old, scene.server = scene.server, Server()
    scene.beat()  # it has nothing, and says so
    for _ in range(told):  # of the three batches with everything
        scene.beat()
    scene.count("a")
    scene.server = old
    assert scene.settle() == 6
    scene.server = Server()
    assert scene.settle() == 6, "and one that has nothing is told everything"


@given(st.lists(STEPS, max_size=40))
def test_what_was_sent_and_not_answered_is_not_counted_under_another_id(history: list[str]):
    scene = Scene()
    for what in history:
        step(scene, what)
    scene.totals.leave_behind()
    old, scene.server = scene.server, Server()
    assert scene.settle() + sum(old.stats.values()) <= scene.counted
    assert scene.settle() + sum(old.stats.values()) == scene.counted or "request lost" in history


def test_what_is_remembered_is_bounded_and_an_older_server_misses_only_what_lies_before_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("async_tracker.instance.totals.COUNTERS_REMEMBERED", 50)
    scene, old = Scene(), Server()
    for number in range(100):
        scene.count()
        scene.beat()
        if number == 4:
            old = scene.server.copy()
    scene.server = old
    assert scene.settle() == 5 + 10, "ten batches of one counter have room"
    scene.server = Server()
    assert scene.settle() == 100, "a server that has nothing is told everything"


def test_an_outage_costs_memory_by_functions_and_not_by_its_length():
    scene = Scene()
    for _ in range(10_000):
        scene.count()
        scene.beat(request=False)
    assert len(scene.totals.pending) == 1
    assert scene.settle() == 10_000


def test_at_the_end_nothing_waits():
    scene = Scene()
    scene.count()
    scene.beat(request=False)
    scene.count("other")
    first, second = scene.totals.take(at_the_end=True)
    assert second.after == first.number
    for batch in (first, second):
        scene.server.beat(batch)
    assert sum(scene.server.stats.values()) == 2


async def test_with_a_fifth_of_the_requests_and_of_the_replies_lost_and_a_server_that_loses_all_every_total_counts_once(
    redis_client, namespace
):
    """On the real server, with the real script."""
    store, scene = Store(Namespace(redis_client, namespace)), Scene()
    await store.register("w", 1, "{}", {"state": "alive"})
    sequence, losses = 1, 0
    for number in range(1_000):
        scene.count(f"function {number % 12}")
        if number == 500:
            await redis_client.delete(f"{namespace}:instance:w", f"{namespace}:stats")
        sequence += 1
        batch = next(iter(scene.totals.take()), None)
        scene.totals.is_sent(batch)
        if number % 5 == 1:
            losses += 1
            continue
        reply = await store.beat("w", Beat(sequence=sequence, connections="", fields={"busy": 0}, totals=batch))
        if number % 5 != 3:
            scene.totals.heard(reply.newest_totals)
    while batches := scene.totals.take():
        sequence += 1
        reply = await store.beat("w", Beat(sequence=sequence, connections="", fields={}, totals=batches[0]))
        assert reply.status is Status.WRITTEN
        scene.totals.heard(reply.newest_totals)
    stats = await redis_client.hgetall(f"{namespace}:stats")
    assert sorted(map(int, stats.values())) == [83] * 8 + [84] * 4
    assert losses == 200
    assert await redis_client.hlen(f"{namespace}:instance:w") <= 4
