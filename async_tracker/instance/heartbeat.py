"""The periodic proof that an instance lives: one small write, whatever the number of jobs."""

import asyncio
import random
from collections.abc import Awaitable, Callable

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.connections.replies import Argument
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.host import rss_bytes
from async_tracker.instance.journal import Journal
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import Pulse
from async_tracker.policy import next_beat
from async_tracker.store.commands import Store
from async_tracker.store.writes import Beat, Reply, Status


class Heartbeat:
    """Beats at the given interval. A beat raises StorageError when Redis is away; the runtime's loop carries on."""

    def __init__(
        self,
        *,
        store: Store,
        pen: Pen,
        journal: Journal,
        clock: ServerClock,
        pulse: Pulse,
        interval: float,
        new_connections: Callable[[], str],
        state: Callable[[], str],
    ) -> None:
        self._store = store
        self._pen = pen
        self._journal = journal
        self._clock = clock
        self._pulse = pulse
        self._interval = interval
        self._new_connections = new_connections
        self._state = state
        self._due = asyncio.Event()
        self.told_state: str | None = None
        """The state that the last beat has told that is known to have got through."""

    async def beat(self) -> Reply:
        """Send one heartbeat with what has changed: connections, busy, memory, lag, state, counters."""
        async with self._pen.lock:
            sent_at_ms = monotonic_ms()
            beat = self.next_beat()
            reply = await self._store.beat(self._pen.instance_id, beat)
        if reply.status is Status.WRITTEN:
            self.told_state = str(beat.fields["state"])
            self._clock.correct(reply.now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
            self._journal.acknowledge_counts(beat.counters)
        return reply

    def next_beat(self) -> Beat:
        """Make the next beat; only who holds the pen may send it."""
        connections = self._new_connections()  # before the number: what the watchdog says meanwhile has a higher one
        return Beat(
            sequence=self._pen.next_number(),
            connections=connections,
            fields=self._fields(),
            counters=self._journal.unsent_counts(),
            minute=self._clock.now_ms() // 60_000,
        )

    def last_beat(self) -> Beat | None:
        """Make the beat for the end of the process, whose loop sends no more; None where the beats before have told all."""
        state, counters = self._state(), self._journal.unsent_counts()
        if not counters and state in ("alive", self.told_state):
            return None
        return Beat(
            sequence=self._pen.next_number(),
            connections="",  # as they were registered: they end with the process
            fields=self._fields(),
            counters=counters,
            minute=self._clock.now_ms() // 60_000,
        )

    def _fields(self) -> dict[str, Argument]:
        counts = self._journal.counts
        return {
            "state": self._state(),
            "busy": self._journal.busy,
            "rss_bytes": rss_bytes(),
            "loop_lag_ms": self._pulse.take_lag_ms(),
            "jobs_started": counts.started,
            "jobs_ended": counts.ended,
            "dropped": self._journal.dropped,
        }

    def hurry(self) -> None:
        """Beat now instead of at the next interval."""
        self._due.set()

    async def run(self, alarms: Alarms, step: Callable[[], Awaitable[None]]) -> None:
        """Call ``step`` at every beat's time, and at once when hurried."""
        while True:
            alarm = alarms.set(next_beat(self._interval, jitter=random.random()), self._due.set)
            try:
                await self._due.wait()
            finally:
                alarms.cancel(alarm)
            self._due.clear()
            await step()
