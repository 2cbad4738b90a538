"""A beat carries what has changed since Redis has taken the last one; all of it where what Redis had may be lost."""

from typing import Any

import pytest

from async_tracker import Tracker
from async_tracker.clock import ServerClock
from async_tracker.instance.heartbeat import Heartbeat
from async_tracker.instance.journal import Journal
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import Pulse
from async_tracker.instance.totals import Totals
from async_tracker.policy import InstanceState
from async_tracker.store import keys
from async_tracker.store.writes import Beat
from tests.harness.wait import wait_until

STEADY = {"state", "busy", "unlisted", "jobs_started", "jobs_ended", "jobs_failed", "dropped"}
"""What does not change while no job starts or ends."""


class Beats:
    """The beats of an instance that nobody sends."""

    def __init__(self) -> None:
        self.failing = ""
        journal = Journal(wake=lambda: None)
        self.heartbeat = Heartbeat(
            pen=Pen("i"),
            journal=journal,
            totals=Totals(journal=journal),
            clock=ServerClock(),
            pulse=Pulse(),
            failing=lambda: self.failing,
            interval=5.0,
            lease="arq",
        )

    def next(self, state: InstanceState = InstanceState.ALIVE) -> Beat:
        return self.heartbeat.beat(state=state, connections="")

    def taken(self, state: InstanceState = InstanceState.ALIVE) -> set[str]:
        beat = self.next(state)
        self.heartbeat.was_taken(beat)
        return set(beat.fields)


def test_what_has_not_changed_since_it_was_taken_is_left_out():
    beats = Beats()
    assert beats.taken() >= STEADY
    assert beats.taken() & STEADY == set()
    assert beats.taken(InstanceState.DRAINING) & STEADY == {"state"}
    assert beats.taken(InstanceState.DRAINING) & STEADY == set()
    beats.heartbeat.tell_all_again()
    assert beats.taken() >= STEADY


def test_what_may_not_have_arrived_is_sent_again_also_where_it_is_as_it_was():
    beats = Beats()
    beats.taken()
    assert set(beats.next(InstanceState.QUIET).fields) & STEADY == {"state"}  # it is not known whether Redis has it
    assert beats.taken() & STEADY == {"state"}
    assert beats.heartbeat.last_beats(state=InstanceState.ALIVE) == []
    (last,) = beats.heartbeat.last_beats(state=InstanceState.DRAINING)
    beats.heartbeat.was_taken(last)
    assert beats.heartbeat.last_beats(state=InstanceState.DRAINING) == []


def test_that_loops_fail_is_said_and_taken_back_also_where_the_beat_that_said_it_was_lost():
    beats = Beats()
    assert "failing" not in beats.taken()
    beats.failing = "the sweep"
    assert beats.next().fields["failing"] == "the sweep"
    beats.failing = ""
    assert beats.next().fields["failing"] == ""
    assert "failing" in beats.taken()
    assert "failing" not in beats.taken()


@pytest.mark.parametrize("lost", ["everything", "nothing"])
async def test_a_beat_of_an_idle_instance_writes_nothing_anew_until_its_registration_is_lost(redis_client: Any, namespace: str, lost: str):
    beating: dict[str, Any] = {"heartbeat_interval": 0.1, "heartbeat_ttl": 5.0}
    async with Tracker(namespace=namespace, redis=redis_client, **beating) as tracker, tracker.register() as instance_id:
        key = f"{namespace}:{keys.instance(instance_id)}"

        async def jobs_started() -> Any:
            return await redis_client.hget(key, "jobs_started")

        async def beats(count: int) -> None:
            first = int(await redis_client.hget(key, "sequence") or 0)

            async def are_over() -> bool:
                return int(await redis_client.hget(key, "sequence") or 0) >= first + count

            await wait_until(are_over, description=f"{count} beats")

        await wait_until(jobs_started, description="it has beaten")
        await beats(2)
        await redis_client.hset(key, "jobs_started", "by hand")
        if lost == "everything":
            await redis_client.flushdb()

            async def is_right() -> bool:
                started = await jobs_started()
                return bool(started == b"0")

            await wait_until(is_right, description="it has told all again")
        else:
            await beats(3)
            assert await jobs_started() == b"by hand"
