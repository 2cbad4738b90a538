"""The one task that writes the journal: everything gathered within ``linger`` in one round trip."""

import asyncio
import itertools
import logging
import math
import threading
from collections.abc import Awaitable, Callable

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.errors import StorageError
from async_tracker.journal import Batch, Journal
from async_tracker.store import Ended, Reply, Status, Store

logger = logging.getLogger("async_tracker")

RETRY_SECONDS = 0.5
"""How long the writer waits after a failed write; a beat that gets through wakes it earlier."""


class Pen:
    """Who may write for an instance: one at a time, each write with a higher number than the one before."""

    def __init__(self, instance_id: str) -> None:
        self.instance_id = instance_id
        self.lock = asyncio.Lock()
        self._numbers = itertools.count(1)

    def next_number(self) -> int:
        """Give the number of the next write; safe from any thread."""
        return next(self._numbers)


class Writer:
    """Wakes when the journal has work, waits ``linger``, writes. Never raises: a failed write is put back and tried again.

    Between two writes lies a linger at least. A run is written once it is older than that, so that the many that are shorter
    cost no write; with ``writes_at_once`` it is written with the next.
    """

    def __init__(
        self,
        *,
        journal: Journal,
        store: Store,
        pen: Pen,
        clock: ServerClock,
        linger: float,
        writes_at_once: bool = False,
        listed_jobs: Callable[[], Awaitable[list[str]]],
        on_unknown: Callable[[], Awaitable[None]],
    ) -> None:
        self._journal = journal
        self._store = store
        self._pen = pen
        self._clock = clock
        self._linger = linger
        self._ripening_ms = 0.0 if writes_at_once else linger * 1000.0
        self._listed_jobs = listed_jobs
        self._on_unknown = on_unknown
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._armed = False
        self._due = asyncio.Event()
        self._written = asyncio.Condition()
        self.failing = False

    def wake(self) -> None:
        """The journal has work. Callable from any thread, cheap when called often."""
        if self._armed:
            return
        self._armed = True
        if threading.get_ident() == self._thread:
            self._loop.call_later(self._linger, self._look)
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.call_later, self._linger, self._look)

    def _look(self) -> None:
        self._armed = False
        if self._journal.is_due(before_ms=self._ripe_before_ms()):
            self._due.set()
        elif self._journal.has_work:  # what is there has only just started, and may end as soon
            self.wake()

    def _ripe_before_ms(self) -> float:
        return monotonic_ms() - self._ripening_ms

    def kick(self) -> None:
        """Try again now: Redis has just answered."""
        if self._journal.has_work:
            self._due.set()

    async def run(self) -> None:
        """Write whenever there is something to write."""
        while True:
            await self._due.wait()
            self._due.clear()
            if not await self._flush(before_ms=self._ripe_before_ms()):
                await asyncio.sleep(RETRY_SECONDS)
                self._due.set()
            elif self._journal.has_work:
                self.wake()

    async def flush(self) -> bool:
        """Write all there is, however young. Returns False when Redis did not take it."""
        return await self._flush(before_ms=math.inf)

    async def _flush(self, *, before_ms: float) -> bool:
        async with self._pen.lock:
            done = await self._write_all(before_ms)
        async with self._written:
            self._written.notify_all()
        return done

    async def _write_all(self, before_ms: float) -> bool:
        """Write what there is. What comes while that is under way waits for its own linger, or a busy worker would write without end."""
        while True:
            if self._journal.must_compare and not await self._compare():
                return False
            batch = self._journal.take(before_ms=before_ms)
            if batch is None:
                return True
            if not await self._write(batch):
                return False
            if not batch.is_full and before_ms < math.inf:
                return True

    async def _write(self, batch: Batch) -> bool:
        try:
            reply = await self._send(batch)
        except StorageError as exc:
            self._journal.put_back(batch)
            self._failed(exc)
            return False
        except BaseException:  # cancelled in the middle of it: nobody knows whether it arrived
            self._journal.put_back(batch)
            raise
        if reply.status is not Status.WRITTEN:
            self._journal.put_back(batch)
            if reply.status is Status.UNKNOWN:
                await self._on_unknown()
            return reply.status is Status.STALE and await self._write_again()
        for run in batch.started:
            run.stored = True
        self._succeeded()
        return True

    async def _write_again(self) -> bool:
        """The watchdog wrote while this batch was under way; with a newer number it is taken."""
        batch = self._journal.take()
        return batch is None or await self._write(batch)

    async def _send(self, batch: Batch) -> Reply:
        sent_at_ms = monotonic_ms()
        reply = await self._store.write(self._pen.instance_id, self._pen.next_number(), started=batch.records, ended=batch.ended)
        self._clock.correct(reply.now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
        return reply

    async def _compare(self) -> bool:
        try:
            listed = await self._listed_jobs()
            gone: list[Ended] = self._journal.compare(listed)
            if gone:
                reply = await self._store.write(self._pen.instance_id, self._pen.next_number(), started=[], ended=gone)
                self._journal.must_compare = reply.status is Status.STALE  # the watchdog wrote meanwhile
            return True
        except StorageError as exc:
            self._journal.must_compare = True
            self._failed(exc)
            return False

    async def wait_written(self, is_written: Callable[[], bool]) -> None:
        """Wait until ``is_written()``; it is asked after every flush."""
        async with self._written:
            await self._written.wait_for(is_written)

    def _failed(self, exc: StorageError) -> None:
        if not self.failing:
            self.failing = True
            logger.warning("tracking is behind, jobs run on: %s", exc, extra={"instance_id": self._pen.instance_id})

    def _succeeded(self) -> None:
        if self.failing:
            self.failing = False
            logger.info("tracking is up to date again", extra={"instance_id": self._pen.instance_id, "dropped": self._journal.dropped})
