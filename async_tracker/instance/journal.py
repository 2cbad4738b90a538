"""The write-behind buffer between the hooks and Redis.

Hooks append and return. What is kept is *state*, not history: the runs in flight that Redis does not know as they are, and the
ended runs that it may still list. So the buffer is bounded by the runs in flight, and after an outage it writes what is still
true, no more.
"""

import itertools
import math
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from async_tracker.clock import monotonic_ms
from async_tracker.instance.counts import Counts
from async_tracker.instance.runs import Run
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Ended

BATCH = 500
"""Runs in one write: what the server does in well under a millisecond or two."""

_NEW_KEPT = 1_000
"""Runs that are laid down before somebody must sort them: the writer, which does it within a few tens of milliseconds, may be blocked."""

ENDED_KEPT = 2_000
"""Ended runs that are remembered during an outage; beyond, the list in Redis is compared once it is back."""


@dataclass(slots=True)
class Batch:
    """What one write carries."""

    started: list[Run]
    records: list[RunRecord]
    ended: list[Ended]

    def was_stored(self) -> None:
        """Redis has taken it."""
        for run in self.started:
            run.stored = True


def _nobody() -> None:
    """Nobody writes yet."""


class Journal:
    """The runs of one process. Every method may be called from any thread and returns at once.

    A run that starts is only laid down. It is taken in when somebody looks, and most have ended by then: those are counted, many in a
    row, and nothing else is done for them. What that saves is little work and many cache misses between a worker's own.
    """

    def __init__(self, *, wake: Callable[[], None] = _nobody) -> None:
        self._lock = threading.Lock()
        self.wake = wake
        """Called when there is something to write: from any thread, and often."""
        self.new: dict[Run, Run] = {}
        """The runs that have started and nobody has looked at, in that order. Whoever pops one must settle it: the look that takes it
        in, or the thread that ends it and counts it in a tally of its own."""
        self._runs: dict[str, Run] = {}
        self._here: dict[str, int] = {}
        self._dirty: dict[str, float] = {}
        """Runs that are not stored as they are, and since when, on the monotonic clock; the longest first."""
        self._ended: dict[str, str] = {}
        self._mixed_up: set[str] = set()
        """Jobs in flight whose record may be that of a run whose end was forgotten."""
        self.must_compare = False
        """Redis may list jobs that this journal has forgotten: its list has to be read and compared."""
        self.dropped = 0
        self.counts = Counts()

    @property
    def busy(self) -> int:
        """Number of runs in flight."""
        with self._lock:
            self._take_in()
            return len(self._runs)

    def runs(self) -> list[Run]:
        """Give the runs in flight, the oldest first."""
        with self._lock:
            self._take_in()
            return list(self._runs.values())

    def send_runs(self, count: int) -> list[Run]:
        """Give the oldest runs in flight that are not stored, for a write past the journal; from here on their ends are written too."""
        with self._lock:
            self._take_in()
            runs = list(itertools.islice((run for run in self._runs.values() if not run.stored), count))
            for run in runs:
                run.sent = True
            return runs

    def start(self, run: Run) -> None:
        """A run has started."""
        self.new[run] = run
        if len(self.new) > _NEW_KEPT:  # in threads of which none lets the writer look
            with self._lock:
                self._take_in()
        self.wake()

    def take_in(self) -> None:
        """Look at the runs that have started."""
        with self._lock:
            self._take_in()

    def _take_in(self, *, before_ms: float = math.inf) -> None:
        """Sort the new runs into those that are in flight and those that have ended, but for those that started after ``before_ms``.

        An end that comes at the same time, in another thread, either is seen here or sees ``is_taken_in`` and waits for the lock.
        """
        for run in list(self.new):
            if run.started_mono_ms > before_ms:
                break
            if self.new.pop(run, None) is not None:
                self._sort(run)

    def take_in_run(self, run: Run) -> None:
        """Look at this one of the runs that have started; if somebody has done so already, that does nothing."""
        if self.new.pop(run, None) is not None:
            with self._lock:
                self._sort(run)

    def _sort(self, run: Run) -> None:
        run.is_taken_in = True
        run.complete()
        self.counts.add(started=1)
        if run.in_flight:
            self._enter(run)
        else:
            self.counts.add(ended=1)
            self._count_end(run)

    def _enter(self, run: Run) -> None:
        self._runs[run.run] = run
        self._here[run.ref] = self._here.get(run.ref, 0) + 1
        self._dirty[run.run] = run.started_mono_ms

    def resume(self, run: Run) -> None:
        """An ended run is in flight again."""
        with self._lock:
            self._take_in()
            self._ended.pop(run.run, None)
            self.counts.add(ended=-1)
            run.in_flight = True
            self._enter(run)
        self.wake()

    def touch(self, run: Run) -> None:
        """Something that is stored of the run has changed."""
        with self._lock:
            self._take_in()
            if run.run not in self._runs:
                return
            self._dirty.setdefault(run.run, monotonic_ms())
        self.wake()

    def end(self, run: Run) -> None:
        """A run has ended; how, its ``outcome`` tells, or `count_end` later. A run that was never sent leaves no trace but its count."""
        run.in_flight = False
        if run.is_taken_in:
            with self._lock:
                self._count_end(run)
                must_tell = self._end(run)
            if must_tell:
                self.wake()

    def _end(self, run: Run) -> bool:
        name, ref = run.run, run.ref
        if self._runs.pop(name, None) is None:
            return False
        self.counts.add(ended=1)
        left = self._here[ref] - 1
        if left:
            self._here[ref] = left
        else:
            del self._here[ref]
        self._dirty.pop(name, None)
        if not run.sent:
            return False
        self._ended[name] = ref
        if len(self._ended) > ENDED_KEPT:
            self.dropped += len(self._ended)
            self._forget_ended()
        return True

    def _forget_ended(self) -> None:
        """The list in Redis will tell which jobs have ended; not so where an older run of the same job is in flight."""
        self._mixed_up.update(ref for ref in self._ended.values() if ref in self._here)
        self._ended.clear()
        self.must_compare = True

    def count_end(self, run: Run) -> None:
        """Count how a run ended that has ended before."""
        with self._lock:
            self._take_in()
            self._count_end(run)

    def _count_end(self, run: Run) -> None:
        if run.outcome is None or run.is_end_counted:
            return
        run.is_end_counted = True
        totals = self.counts.of(run.function, run.queue)
        if not run.is_start_counted:
            _count_start(run, totals)
        totals[run.outcome] += 1
        totals["run_ms"] += int(run.ended_mono_ms - run.started_mono_ms)

    def _count_starts(self) -> None:
        """Count the starts of the runs in flight: most runs end sooner, and are counted once, start and end."""
        for run in self._runs.values():
            if not run.is_start_counted and (run.function is not None or not run.expects_name):
                _count_start(run, self.counts.of(run.function, run.queue))

    def unsent_counts(self) -> dict[str, int]:
        """Give the totals that have changed since they were last acknowledged."""
        with self._lock:
            self._take_in()
            self._count_starts()
            return self.counts.unsent()

    def acknowledge_counts(self, sent: Mapping[str, int]) -> None:
        """Remember which totals Redis has."""
        with self._lock:
            self.counts.acknowledge(sent)

    def discard(self, run: Run) -> None:
        """Not to be tracked after all: as if it had never started. How it ends may be counted all the same."""
        if self.new.pop(run, None) is not None:
            run.in_flight = False
            run.is_taken_in = True
            return
        with self._lock:
            if run.run in self._runs:
                self.counts.add(started=-1, ended=-1)
            if run.is_start_counted:
                _count_start(run, self.counts.of(run.function, run.queue), by=-1)
        self.end(run)

    @property
    def has_work(self) -> bool:
        """Whether there is something to write."""
        return bool(self.new or self._dirty or self._ended or self.must_compare)

    def is_due(self, *, before_ms: float) -> bool:
        """Whether there is something to write beside the runs that became what they are after ``before_ms``, on the monotonic clock."""
        with self._lock:
            self._take_in(before_ms=before_ms)
            return bool(self._ended) or self.must_compare or next(iter(self._dirty.values()), math.inf) <= before_ms

    def take(self, *, before_ms: float = math.inf) -> Batch | None:
        """Take what is to be written next, without the runs that became what they are after ``before_ms``.

        ``put_back`` returns it when the write fails. Ends have to wait for a comparison where there must be one.
        """
        with self._lock:
            self._take_in()
            ripe = itertools.takewhile(lambda name: self._dirty[name] <= before_ms, self._dirty)
            names = list(itertools.islice(ripe, BATCH))
            started = [self._runs[name] for name in names]
            for name in names:
                del self._dirty[name]
            ended: list[Ended] = []
            if not self.must_compare:
                for name in list(self._ended)[:BATCH]:
                    job_id = self._ended.pop(name)
                    ended.append(Ended(job_id=job_id, run=name, last_here=job_id not in self._here))
                self._take_over({end.job_id for end in ended if not end.last_here})
            for run in started:
                run.sent = True
            if not started and not ended:
                return None
            return Batch(started, [run.record(superseded=self._here.get(run.ref, 1) - 1) for run in started], ended)

    def _take_over(self, refs: set[str]) -> None:
        """The list keeps these jobs for runs that are still in flight: their ends must be written, however short they are."""
        for run in self._runs.values() if refs else ():
            if run.ref in refs:
                run.sent = True

    def put_back(self, batch: Batch) -> None:
        """The write failed, or nobody knows: what is still true is to be written again."""
        with self._lock:
            again = {run.run: run.started_mono_ms for run in batch.started if run.run in self._runs}
            self._dirty = {**again, **self._dirty}
            for run in batch.started:
                if run.run not in self._runs:
                    self._ended.setdefault(run.run, run.ref)
            for end in batch.ended:
                if end.run is not None:
                    self._ended.setdefault(end.run, end.job_id)

    def compare(self, listed: Iterable[str]) -> list[Ended]:
        """Tell which of the jobs that Redis lists for this instance are not in flight; they are written off.

        So are records that may be those of another run than the one in flight, which is written again.
        """
        with self._lock:
            self._take_in()
            self.must_compare = False
            gone = [Ended(job_id=job_id, run=None) for job_id in listed if job_id not in self._here]
            mixed_up, self._mixed_up = self._mixed_up & self._here.keys(), set()
            again = {name: run.started_mono_ms for name, run in self._runs.items() if run.ref in mixed_up}
            self._dirty = {**again, **self._dirty}
            return gone + [Ended(job_id=job_id, run=None, last_here=False) for job_id in mixed_up]

    def compare_again(self, gone: Iterable[Ended]) -> None:
        """What was to be written off may still be there."""
        with self._lock:
            self.must_compare = True
            self._mixed_up.update(end.job_id for end in gone if not end.last_here)

    def write_all_again(self) -> None:
        """Redis has lost what it was told: every run in flight is written again."""
        with self._lock:
            self._take_in()
            self._forget_ended()
            self._dirty = {name: run.started_mono_ms for name, run in self._runs.items()}
        self.wake()

    def resend_counts(self) -> None:
        """Redis may have lost the totals: all are sent again, and what it still has is not counted twice."""
        with self._lock:
            self.counts.resend_all()

    def disown(self) -> list[Run]:
        """The instance was declared dead: its runs are not ours any more. Returns them."""
        with self._lock:
            self._take_in()
            self._count_starts()
            lost = list(self._runs.values())
            for run in lost:
                run.owned = False
                run.in_flight = False
            self._runs.clear()
            self._here.clear()
            self._dirty.clear()
            self._ended.clear()
            self._mixed_up.clear()
            self.must_compare = False
            self.counts.start_anew()
            return lost


def _count_start(run: Run, totals: defaultdict[str, int], *, by: int = 1) -> None:
    run.is_start_counted = True
    totals["started"] += by
    if run.due_at_ms is not None and run.started_at_ms > run.due_at_ms:
        totals["wait_ms"] += by * (run.started_at_ms - run.due_at_ms)
