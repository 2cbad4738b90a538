"""The one task that writes the journal: everything gathered within ``linger`` in one round trip."""

import asyncio
import logging
import math
import threading
from collections.abc import Awaitable, Callable

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.errors import StorageError
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.journal import BATCH, Batch, Journal
from async_tracker.instance.pen import Pen
from async_tracker.store.commands import Store
from async_tracker.store.writes import Ended, Reply, Status, Write

logger = logging.getLogger("async_tracker")

_HASTE = 4
"""Into how many parts a linger is cut where jobs wait for their starts: they hold slots, and arq reads nothing while all are held."""
_PATIENCE_SECONDS = 0.03
"""Between two looks at jobs all of which are shorter than a linger: each look finds nothing to write, and takes the loop from the jobs."""

RETRY_SECONDS = 0.5
"""How long the writer waits after a failed write; a beat that gets through wakes it earlier."""
_BATCHES = 8
"""How many batches go out in one round trip; more would keep the event loop from the jobs for longer than a few tens of milliseconds."""


class Writer:
    """Wakes when the journal has work, waits ``linger``, writes. Never raises: a failed write is put back and tried again.

    Between two writes lies a linger at least, and more where all runs are shorter. A run is written once it is older than that,
    so that the many that are shorter cost no write. With ``writes_at_once``, where jobs wait for it, it is written with the next,
    and a quarter of a linger lies between two.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        store: Store,
        pen: Pen,
        clock: ServerClock,
        alarms: Alarms,
        linger: float,
        writes_at_once: bool = False,
        listed_jobs: Callable[[], Awaitable[list[str]]],
        on_unknown: Callable[[], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._store = store
        self._pen = pen
        self._clock = clock
        self._alarms = alarms
        self._gathers = linger / _HASTE if writes_at_once else linger
        self._ripening_ms = 0.0 if writes_at_once else linger * 1000.0
        self._listed_jobs = listed_jobs
        self._on_unknown = on_unknown
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.is_awake = False
        """It will look at the journal shortly, so that `wake` has nothing to do."""
        self._started_before = 0
        """Number of runs that had started when it last looked."""
        self._due = asyncio.Event()
        self._written = asyncio.Condition()
        self.failing = False
        self._dropped_told = 0

    def wake(self) -> None:
        """The journal has work. Callable from any thread, cheap when called often."""
        if self.is_awake or self._loop.is_closed():
            return
        self.is_awake = True
        if threading.get_ident() == self._thread:
            self._look_in(self._gathers)
        else:
            self._loop.call_soon_threadsafe(self._look_in, self._gathers)

    def _look_in(self, seconds: float) -> None:
        self._alarms.set(seconds, self._look)

    def _look(self) -> None:
        self.is_awake = False
        started_before, self._started_before = self._started_before, self._journal.counts.started
        if self._journal.is_due(before_ms=self._ripe_before_ms()):
            self._due.set()
        elif self._ripening_ms and (self._journal.has_work or self._started_before != started_before):
            self.is_awake = True  # what has only just started may end as soon; where starts are written at once, each wakes for itself
            self._look_in(max(self._gathers, _PATIENCE_SECONDS))

    def _ripe_before_ms(self) -> float:
        return monotonic_ms() - self._ripening_ms

    def kick(self) -> None:
        """Try again now: Redis has just answered."""
        if self._journal.has_work or self.failing:
            self._due.set()

    async def run(self) -> None:
        """Write whenever there is something to write."""
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._flush(before_ms=self._ripe_before_ms()):
                await self._alarms.sleep(RETRY_SECONDS)
                self._due.set()
            elif self._journal.has_work:
                self.wake()

    async def _flush(self, *, before_ms: float) -> bool:
        async with self._pen.lock:
            done = await self._write_all(before_ms)
        async with self._written:
            self._written.notify_all()
        return done

    async def _write_all(self, before_ms: float) -> bool:
        """Write what there is, in one round trip. What comes meanwhile waits for its own linger, or a busy worker wrote without end."""
        if self._journal.must_compare and not await self.compare():
            return False
        batches = self._take(_BATCHES, before_ms=before_ms)
        if batches:
            return await self._write(batches)
        self._succeeded()  # Redis knows all that it is to know
        return True

    def _take(self, count: float, *, before_ms: float = math.inf) -> list[Batch]:
        batches: list[Batch] = []
        while len(batches) < count and (batch := self._journal.take(before_ms=before_ms)) is not None:
            batches.append(batch)
        return batches

    async def _write(self, batches: list[Batch]) -> bool:
        try:
            replies = await self._send(batches)
        except StorageError as exc:
            self._put_back(batches)
            self._failed(exc)
            return False
        except BaseException:  # cancelled in the middle of it: nobody knows whether it arrived
            self._put_back(batches)
            raise
        for batch, reply in zip(batches, replies, strict=True):
            if reply.status is Status.WRITTEN:
                batch.was_stored()
        refused = {reply.status for reply in replies} - {Status.WRITTEN}
        self._put_back([batch for batch, reply in zip(batches, replies, strict=True) if reply.status is not Status.WRITTEN])
        if Status.UNKNOWN in refused:
            await self._on_unknown()
            return False
        if not refused:  # else the watchdog wrote meanwhile: with newer numbers the rest is taken, after another linger
            self._succeeded()
        return True

    def _put_back(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            self._journal.put_back(batch)

    async def _send(self, batches: list[Batch]) -> list[Reply]:
        sent_at_ms = monotonic_ms()
        replies = await self._store.write_many(self._pen.instance_id, self._numbered(batches))
        self._clock.correct(replies[0].now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
        return replies

    def _numbered(self, batches: list[Batch]) -> list[Write]:
        return [Write(sequence=self._pen.next_number(), started=batch.records, ended=batch.ended) for batch in batches]

    async def compare(self) -> bool:
        """Read which jobs Redis lists for us, and write off those that are not in flight; False when that must be done again."""
        gone: list[Ended] = []
        try:
            listed = await self._listed_jobs()
            gone = self._journal.compare(listed)
            parts = [Batch([], [], gone[start : start + BATCH]) for start in range(0, len(gone), BATCH)]
            replies = await self._send(parts) if parts else []
        except StorageError as exc:
            self._journal.compare_again(gone)
            self._failed(exc)
            return False
        if all(reply.status is not Status.STALE for reply in replies):
            return True
        self._journal.compare_again(gone)  # the watchdog wrote meanwhile
        return False

    def last_writes(self) -> list[Write]:
        """Take all there is, however young, for the last message of this instance; only who holds the pen may send it."""
        return self._numbered(self._take(math.inf))

    async def wait_written(self, is_written: Callable[[], bool]) -> None:
        """Wait until ``is_written()``; it is asked after every flush."""
        async with self._written:
            await self._written.wait_for(is_written)

    def _failed(self, exc: StorageError) -> None:
        if not self.failing:
            self.failing = True
            logger.warning("tracking is behind, jobs run on: %s", exc, extra={"instance_id": self._pen.instance_id})

    def _succeeded(self) -> None:
        if not self.failing:
            return
        self.failing = False
        dropped = self._journal.dropped - self._dropped_told
        self._dropped_told = self._journal.dropped
        facts = {"instance_id": self._pen.instance_id, "dropped": dropped}
        if dropped:
            logger.warning("tracking is up to date again: %d writes were dropped, Redis was compared with what is in flight instead",
                           dropped, extra=facts)  # fmt: skip
        else:
            logger.info("tracking is up to date again", extra=facts)
