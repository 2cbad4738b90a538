"""The one task that writes the journal: everything gathered within ``linger`` in one round trip."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.journal import BATCH, Batch, Journal
from async_tracker.instance.pen import Pen
from async_tracker.store.commands import Store
from async_tracker.store.writes import Ended, Reply, Status, Write

logger = logging.getLogger("async_tracker")

_HASTE = 4
"""With ``durable``, write every ``linger / 4``: waiting jobs hold worker slots, and arq stops reading its queue when all are taken."""
_PATIENCE_SECONDS = 0.03
"""Between two checks while all jobs are shorter than a linger: such a check finds nothing to write, and takes time from the jobs."""

RETRY_SECONDS = 0.5
"""How long the writer waits after a failed write; a beat that Redis takes wakes it earlier."""

_BEHIND = "tracking is behind, jobs keep running: %s"
_CAUGHT_UP = "tracking is up to date again"
_CAUGHT_UP_BY_COMPARING = "tracking is up to date again: %d writes were dropped, Redis was compared with what is in flight instead"
_BATCHES = 8
"""How many batches go out in one round trip; more would keep the event loop from the jobs for longer than a few tens of milliseconds."""


class Writer:
    """Wakes when the journal has work, waits ``linger``, writes. Never raises: a failed write is put back and tried again.

    Two writes are at least a linger apart, and further where all runs are shorter. A run is written once it is older than that,
    so that the many that are shorter cost no write. With ``writes_at_once``, where jobs wait for it, a run is written with the next
    write, and two writes are a quarter of a linger apart.
    """

    def __init__(
        self,
        *,
        store: Store,
        pen: Pen,
        clock: ServerClock,
        alarms: Alarms,
        linger: float,
        writes_at_once: bool = False,
        on_unknown: Callable[[], None],
    ) -> None:
        """``linger`` is in seconds. ``on_unknown`` is called when Redis answers that it does not know the instance."""
        self.journal = Journal(wake=self.wake)
        """What is written; the writer makes it, for it wakes the writer."""
        self._store = store
        self._pen = pen
        self._clock = clock
        self._alarms = alarms
        self._gathers = linger / _HASTE if writes_at_once else linger
        self._ripening_ms = 0.0 if writes_at_once else linger * 1000.0
        self._on_unknown = on_unknown
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.is_awake = False
        """It will check the journal shortly, so that `wake` has nothing to do."""
        self.checks = 0
        """How often it has checked the journal."""
        self._started_before = 0
        """Number of runs that had started at the last check."""
        self._due = asyncio.Event()
        self._written = asyncio.Condition()
        self.is_behind = False
        """The last write failed: Redis does not know what the journal holds."""
        self.refusal = ""
        """Why Redis refused the last write; '' where it was taken, or Redis was away."""
        self._dropped_before = 0

    def wake(self) -> None:
        """The journal has work. Callable from any thread, cheap when called often."""
        if self.is_awake or self._loop.is_closed():
            return
        self.is_awake = True
        if threading.get_ident() == self._thread:
            self._check_in(self._gathers)
        else:
            self._loop.call_soon_threadsafe(self._check_in, self._gathers)

    def _check_in(self, seconds: float) -> None:
        self._alarms.set(seconds, self._check)

    def _check(self) -> None:
        self.is_awake = False
        self.checks += 1
        started_before, self._started_before = self._started_before, self.journal.counts.started
        if self.journal.is_due(before_ms=self._ripe_before_ms()):
            self._due.set()
        elif self._ripening_ms and (self.journal.has_work or self._started_before != started_before):
            self.is_awake = True  # what has only just started may end as soon; where starts are written at once, each wakes for itself
            self._check_in(max(self._gathers, _PATIENCE_SECONDS))

    def _ripe_before_ms(self) -> float:
        return monotonic_ms() - self._ripening_ms

    def kick(self) -> None:
        """Try again now: Redis has just answered."""
        if self.journal.has_work or self.is_behind:
            self._due.set()

    async def run(self) -> None:
        """Write whenever there is something to write."""
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._flush(before_ms=self._ripe_before_ms()):
                await self._alarms.sleep(RETRY_SECONDS)
                self._due.set()
            elif self.journal.has_work:
                self.wake()

    async def _flush(self, *, before_ms: float) -> bool:
        async with self._pen.lock:
            done = await self._write_all(before_ms)
        async with self._written:
            self._written.notify_all()
        return done

    async def _write_all(self, before_ms: float) -> bool:
        """Write what there is, in one round trip. What comes meanwhile waits for its own linger: else a busy worker never stopped."""
        if self.journal.must_compare and not await self.compare():
            return False
        batches = self._take(_BATCHES, before_ms=before_ms)
        if batches:
            return await self._write(batches)
        self._succeeded()  # there is nothing left that Redis must know
        return True

    def _take(self, count: float, *, before_ms: float = math.inf) -> list[Batch]:
        batches: list[Batch] = []
        while len(batches) < count and (batch := self.journal.take(before_ms=before_ms)) is not None:
            batches.append(batch)
        return batches

    async def _write(self, batches: list[Batch]) -> bool:
        try:
            replies = await self._send(batches)
        except StorageError as exc:
            self._put_back(batches)
            self._failed(exc)
            return False
        except BaseException:  # cancelled in the middle of it: whether it arrived is not known
            self._put_back(batches)
            raise
        for batch, reply in zip(batches, replies, strict=True):
            if reply.status is Status.WRITTEN:
                batch.was_stored()
        refused = {reply.status for reply in replies} - {Status.WRITTEN}
        self._put_back([batch for batch, reply in zip(batches, replies, strict=True) if reply.status is not Status.WRITTEN])
        if Status.UNKNOWN in refused:
            self._on_unknown()
            return False
        if not refused:  # else the watchdog wrote meanwhile: with newer numbers the rest is taken, after another linger
            self._succeeded()
        return True

    def _put_back(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            self.journal.put_back(batch)

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
            listed = await self._store.listed_jobs(self._pen.instance_id)
            gone = self.journal.compare(listed)
            parts = [Batch([], [], gone[start : start + BATCH]) for start in range(0, len(gone), BATCH)]
            replies = await self._send(parts) if parts else []
        except StorageError as exc:
            self.journal.compare_again(gone)
            self._failed(exc)
            return False
        if all(reply.status is not Status.STALE for reply in replies):
            return True
        self.journal.compare_again(gone)  # the watchdog wrote meanwhile
        return False

    def last_writes(self) -> list[Write]:
        """Take all that the journal holds, however new, for this instance's last message. Only the holder of the pen's lock may send it."""
        return self._numbered(self._take(math.inf))

    async def wait_written(self, is_written: Callable[[], bool]) -> None:
        """Wait until ``is_written()``; it is asked after every flush."""
        async with self._written:
            await self._written.wait_for(is_written)

    def _failed(self, exc: StorageError) -> None:
        self.refusal = "" if isinstance(exc, StorageUnavailable) else str(exc)
        if not self.is_behind:
            self.is_behind = True
            logger.warning(_BEHIND, exc, extra={"instance_id": self._pen.instance_id})

    def _succeeded(self) -> None:
        self.refusal = ""
        if not self.is_behind:
            return
        self.is_behind = False
        dropped = self.journal.dropped - self._dropped_before
        self._dropped_before = self.journal.dropped
        facts = {"instance_id": self._pen.instance_id, "dropped": dropped}
        if dropped:
            logger.warning(_CAUGHT_UP_BY_COMPARING, dropped, extra=facts)
        else:
            logger.info(_CAUGHT_UP, extra=facts)
