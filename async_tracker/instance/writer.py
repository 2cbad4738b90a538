"""The one task that writes the journal. Writes are rationed by time and not by job: `policy.Ration` has the rule."""

import asyncio
import logging
import math
import threading
from collections.abc import Callable

from async_tracker.clock import ServerClock, monotonic_ms
from async_tracker.connections.calls import leads_elsewhere
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.instance.alarms import Alarms
from async_tracker.instance.journal import BATCH, Batch, Journal
from async_tracker.instance.pen import Pen
from async_tracker.instance.runs import Run
from async_tracker.policy import HASTY_A_SECOND, Ration, hasty_left
from async_tracker.store.commands import Store
from async_tracker.store.writes import Ended, Reply, Status, Write

logger = logging.getLogger("async_tracker")

RETRY_SECONDS = 0.5
"""How long the writer waits after a failed write; a beat that Redis takes wakes it earlier."""

_BEHIND = "tracking is behind, jobs keep running: %s"
_CAUGHT_UP = "tracking is up to date again"
_CAUGHT_UP_BY_COMPARING = "tracking is up to date again: %d writes were dropped, Redis was compared with what is in flight instead"
_BATCHES = 8
"""How many batches go out in one round trip; more would keep the event loop from the jobs for longer than a few tens of milliseconds."""


class Writer:
    """Wakes when the journal has work, waits, writes what is old enough. Never raises: a failed write is put back and tried again.

    Looks at the journal are ``gather`` apart while there is work, so that what leaves a process depends on the time and not on what it
    runs; the first one after a quiet second comes after ``linger``. Only runs of a second try are written at once, a few a second, and
    those for whose write a job waits.
    """

    def __init__(
        self,
        *,
        store: Store,
        pen: Pen,
        clock: ServerClock,
        alarms: Alarms,
        ration: Ration,
        on_unknown: Callable[[], None],
        on_orders: Callable[[str, int], None],
    ) -> None:
        """``on_unknown`` is called when Redis answers that it does not know the instance, ``on_orders`` with orders that it hands over."""
        self.journal = Journal(wake=self.wake)
        """What is written; the writer makes it, for it wakes the writer."""
        self._store = store
        self._pen = pen
        self._clock = clock
        self._alarms = alarms
        self._ration = ration
        self._on_unknown = on_unknown
        self._on_orders = on_orders
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.is_awake = False
        """It will check the journal shortly, so that `wake` has nothing to do."""
        self._started_before = 0
        """Number of runs that had started at the last check."""
        self._busy_at_ms = float("-inf")
        """When a run was last seen to have started, or a write began."""
        self._is_hasty = False
        """The next check is the first after a quiet time."""
        self._hasty_left = HASTY_A_SECOND
        self._hasty_counted_ms = 0.0
        self._due = asyncio.Event()
        self._waiting: dict[asyncio.Future[None], Callable[[], bool]] = {}
        """What jobs wait for; it is asked after every flush, and only the jobs that need wait no longer are woken."""
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
            self._wake_up()
        else:
            self._loop.call_soon_threadsafe(self._wake_up)

    def _wake_up(self) -> None:
        quiet_for = (monotonic_ms() - self._busy_at_ms) / 1000.0
        wait = self._ration.first_check(quiet_for=quiet_for)
        self._is_hasty = wait < self._ration.gather
        self._check_in(wait)

    def _check_in(self, seconds: float) -> None:
        self._alarms.set(seconds, self._check)

    def _check(self) -> None:
        self.is_awake = False
        now_ms, is_hasty = monotonic_ms(), self._is_hasty
        is_due = self.journal.is_due(
            before_ms=now_ms - self._ration.start_waits(is_hasty=is_hasty) * 1000.0,
            ended_before_ms=now_ms - self._ration.end_waits(is_hasty=is_hasty) * 1000.0,
        )
        has_work, started = self.journal.has_work, self.journal.counts.started
        if has_work or started != self._started_before:
            self._busy_at_ms = now_ms
        if is_due:
            self._due.set()
        elif has_work or started != self._started_before:
            self._is_hasty = False
            self.is_awake = True  # what has only just started may end as soon
            self._check_in(self._ration.gather)
        self._started_before = started

    def hurry(self, run: Run) -> bool:
        """Write this run, which has just started, in the next turn of the loop, unless many others have been. Callable from any thread.

        Returns whether it is.
        """
        now_ms = monotonic_ms()
        left = hasty_left(self._hasty_left, elapsed=(now_ms - self._hasty_counted_ms) / 1000.0)
        self._hasty_counted_ms = now_ms
        is_prompt = left >= 1.0
        self._hasty_left = left - 1.0 if is_prompt else left
        if is_prompt:
            run.is_prompt = True
            self.journal.take_in_run(run)
            if threading.get_ident() == self._thread:
                self._due.set()
            elif not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._due.set)
        return is_prompt

    def _ripe_before_ms(self) -> float:
        return monotonic_ms() - self._ration.start_waits(is_hasty=self._is_hasty) * 1000.0

    def write_now(self) -> None:
        """Write in the next turn of the loop, since a job waits for it. What comes while a write is under way goes with the next one.

        Only the loop's thread may call it.
        """
        self._due.set()

    def kick(self) -> None:
        """Try again now: Redis has just answered."""
        if self.journal.has_work or self.is_behind:
            self._due.set()

    async def run(self) -> None:
        """Write whenever there is something to write."""
        while True:
            await self._due.wait()
            self._due.clear()
            self._busy_at_ms = monotonic_ms()
            ripe_before_ms, self._is_hasty = self._ripe_before_ms(), False
            if not await self._flush(before_ms=ripe_before_ms):
                await self._alarms.sleep(RETRY_SECONDS)
                self._due.set()
            elif self.journal.has_work:
                self.wake()

    async def _flush(self, *, before_ms: float) -> bool:
        async with self._pen.lock:
            done = await self._write_all(before_ms)
        for waiter, is_written in self._waiting.items():
            if not waiter.done() and is_written():
                waiter.set_result(None)
        return done

    async def _write_all(self, before_ms: float) -> bool:
        """Write what there is, in one round trip. What comes meanwhile waits for its own time: else a busy worker never stopped."""
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
            if max(len(batch.started), len(batch.ended)) < BATCH:  # there is no more
                break
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
        if not refused:  # else the watchdog wrote meanwhile: with newer numbers the rest is taken, with the next write
            self._succeeded()
        return True

    def _put_back(self, batches: list[Batch]) -> None:
        for batch in reversed(batches):
            self.journal.put_back(batch)

    async def _send(self, batches: list[Batch]) -> list[Reply]:
        sent_at_ms = monotonic_ms()
        may_die = any(run.is_prompt for batch in batches for run in batch.started)
        replies = await self._store.write_many(self._pen.instance_id, self._numbered(batches), is_last_word=may_die)
        self._clock.correct(replies[0].now_ms, sent_at_ms=sent_at_ms, received_at_ms=monotonic_ms())
        if replies[-1].orders:
            self._on_orders(replies[-1].orders, replies[-1].now_ms)
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
        if is_written():
            return
        waiter = self._loop.create_future()
        self._waiting[waiter] = is_written
        try:
            await waiter
        finally:
            del self._waiting[waiter]

    def _failed(self, exc: StorageError) -> None:
        self.refusal = "" if isinstance(exc, StorageUnavailable) or leads_elsewhere(exc) else str(exc)
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
