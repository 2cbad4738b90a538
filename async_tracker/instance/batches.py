"""What an instance has counted, on its way into the history: in numbered batches, each of which counts once.

A batch is sent as it is, under its number, until Redis has answered that it has it. Only then is the next one made: so an outage costs
memory by functions and not by its length, since histograms merge.
"""

import itertools
import logging
from collections.abc import Sequence

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.instance.journal import Journal
from async_tracker.store.commands import Store
from async_tracker.store.counters import COUNTERS_IN_A_BATCH, CountedBatch, in_parts
from async_tracker.store.writes import Status

logger = logging.getLogger("async_tracker")

_LOST = "what was counted just before this instance was declared dead is left out of the history: Redis may have added it already"


class Batches:
    """The batches of one instance. Used in its event loop, and at the very end of its process."""

    def __init__(self, *, journal: Journal, clock: ServerClock) -> None:
        self._journal = journal
        self._clock = clock
        self._numbers = itertools.count(1)
        self._pending: list[CountedBatch] = []
        self._in_doubt: int | None = None
        """The number of the one that was sent and not answered."""
        self._since_ms = monotonic_ms()

    def take(self, *, at_the_end: bool = False) -> Sequence[CountedBatch]:
        """Give what Redis is not known to have: first what was made before, else what is new; ``at_the_end`` of the process both."""
        if at_the_end or not self._pending:
            now_ms = monotonic_ms()
            self._pending += [
                CountedBatch(number=next(self._numbers), since_ms=self._since_ms, counted=part)
                for part in in_parts(self._journal.take_new_counts(), size=COUNTERS_IN_A_BATCH)
            ]
            self._since_ms = now_ms
        return self._pending

    async def send(self, store: Store, instance_id: str) -> None:
        """Send what has not been answered, then what is new, one batch a message: the server has a turn for others between two.

        Raises StorageError; then the same batch is sent again the next time.
        """
        for _ in range(2 if self._pending else 1):
            for batch in list(self.take()):
                was_in_doubt, self._in_doubt = self._in_doubt, batch.number
                reply = await store.count(instance_id, batch, clock=self._clock)
                self._in_doubt = was_in_doubt if reply.status is Status.UNKNOWN else None
                if reply.status not in (Status.WRITTEN, Status.STALE):
                    return  # the instance is not registered, or the server's minute is another one: the next beat will know
                self._pending.remove(batch)

    def leave_behind(self) -> None:
        """Another instance id reports from here on: what the old one may have counted already must not be counted twice."""
        if self._in_doubt is not None:
            logger.warning(_LOST)
            self._pending = [batch for batch in self._pending if batch.number != self._in_doubt]
            self._in_doubt = None
