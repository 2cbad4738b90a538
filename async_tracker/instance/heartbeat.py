"""The periodic proof that an instance lives: one small write, whatever the number of jobs."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable

from async_tracker.clock import ServerClock
from async_tracker.connections.replies import Argument
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.host import rss_bytes
from async_tracker.instance.journal import Journal
from async_tracker.instance.pen import Pen
from async_tracker.instance.pulse import Pulse
from async_tracker.instance.totals import Totals
from async_tracker.policy import InstanceState, next_beat
from async_tracker.store.counters import TotalsBatch
from async_tracker.store.writes import Beat

_ATTENTIVE_SECONDS = 60.0
"""For how long an instance that was given an order beats oftener: another one may follow, and answers go with beats."""
_ATTENTIVE_INTERVAL = 0.5


def beat_interval(interval: float, *, since_order: float) -> float:
    """Give how far beats are apart, in seconds, so many seconds after the last order.

    >>> [beat_interval(30.0, since_order=seconds) for seconds in (0.0, 59.9, 60.0, float("inf"))], beat_interval(0.2, since_order=1.0)
    ([0.5, 0.5, 30.0, 30.0], 0.2)
    """
    return min(interval, _ATTENTIVE_INTERVAL) if since_order < _ATTENTIVE_SECONDS else interval


class Heartbeat:
    """Makes the beats, and calls for one at the given interval. Sending them is the registration's part."""

    def __init__(
        self,
        *,
        pen: Pen,
        journal: Journal,
        totals: Totals,
        clock: ServerClock,
        pulse: Pulse,
        failing: Callable[[], str],
        interval: float,
        lease: str,
    ) -> None:
        """``interval`` is in seconds. ``failing`` says which loops of the instance fail, '' for none. ``lease`` is the name of the lease
        that it would hold."""
        self._failing = failing
        self._lease = lease
        self._has_failed = False
        self._pen = pen
        self._journal = journal
        self._totals = totals
        self._clock = clock
        self._pulse = pulse
        self._interval = interval
        self._ordered_at = float("-inf")
        self._due = asyncio.Event()
        self._told: dict[str, Argument] = {}
        """The fields as Redis has them; without those whose arrival is not known."""

    def beat(self, *, state: InstanceState, connections: str) -> Beat:
        """Make the next beat, with the first batch of totals that Redis does not have. Only the holder of the pen's lock may send it.

        ``connections`` is '' where they have not changed. It must be read before this call takes the beat's number, so that what the
        watchdog says in between has a higher one. Fields that have not changed since Redis has taken them are left out: an idle instance
        has next to none.
        """
        batch = next(iter(self._totals.take()), None)
        return self._make(self._fields(state), batch, connections=connections)

    def further_beat(self, batch: TotalsBatch) -> Beat:
        """Make a beat for totals alone, which the one before had no room for."""
        return self._make({}, batch)

    def _make(self, fields: dict[str, Argument], batch: TotalsBatch | None, *, connections: str = "") -> Beat:
        return Beat(sequence=self._pen.next_number(), connections=connections, fields=fields, totals=batch, lease=self._lease)

    def beats_at_the_end(self, *, state: InstanceState, connections: str = "") -> list[Beat]:
        """Make the beats with all that is left to say, for one message in which nothing waits for an answer."""
        batches = self._totals.take(at_the_end=True)
        first = self._make(self._fields(state), next(iter(batches), None), connections=connections)
        return [first, *map(self.further_beat, batches[1:])]

    def last_beats(self, *, state: InstanceState) -> list[Beat]:
        """Make the beats for the end of the process, whose loop sends no more; none where Redis has all that they would say."""
        if state in (InstanceState.ALIVE, self._told.get("state")) and not self._totals.take(at_the_end=True):
            return []
        return self.beats_at_the_end(state=state)  # with the connections as they were registered: they end with the process

    def was_taken(self, beat: Beat) -> None:
        """Redis has taken a beat that says how the instance is."""
        self._told.update(beat.fields)

    def tell_all_again(self) -> None:
        """Have the next beat carry all fields: what Redis had of them may be lost."""
        self._told.clear()

    def _fields(self, state: InstanceState) -> dict[str, Argument]:
        """Give the fields that Redis does not have; until their beat is taken, it is not known whether it has them."""
        changed = {name: value for name, value in self._all_fields(state).items() if self._told.get(name) != value}
        for name in changed:
            self._told.pop(name, None)
        return changed

    def _all_fields(self, state: InstanceState) -> dict[str, Argument]:
        counts = self._journal.counts
        failing = self._failing()
        self._has_failed = self._has_failed or failing != ""
        return {
            **({"failing": failing} if self._has_failed else {}),
            "state": state.value,
            "busy": self._journal.busy,
            "unlisted": self._journal.unlisted,
            "rss_bytes": rss_bytes(),
            "loop_lag_ms": self._pulse.take_lag_ms(),
            "jobs_started": counts.started,
            "jobs_ended": counts.ended,
            "jobs_failed": counts.failed,
            "dropped": self._journal.dropped,
        }

    def attend(self) -> None:
        """Beat oftener for the next minute, from now on: the instance was given an order."""
        self._ordered_at = time.monotonic()
        self._due.set()

    def _current_interval(self) -> float:
        return beat_interval(self._interval, since_order=time.monotonic() - self._ordered_at)

    def hurry(self) -> None:
        """Beat now instead of at the next interval."""
        self._due.set()

    async def run(self, alarms: Alarms, step: Callable[[], Awaitable[None]]) -> None:
        """Await ``step()`` whenever a beat is due, and at once when hurried."""
        while True:
            alarm = alarms.set(next_beat(self._current_interval(), jitter=random.random()), self._due.set)
            try:
                await self._due.wait()
            finally:
                alarms.cancel(alarm)
            self._due.clear()
            await step()
