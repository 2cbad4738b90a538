"""The write-behind buffer between the hooks and Redis.

Hooks append and return. The buffer holds *state*, not history: the runs in flight that Redis does not know as they are, and the
ended runs that Redis may still list. So it is bounded by the runs in flight, and after an outage it writes what is still true, no
more.
"""

import itertools
import math
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from async_tracker.clock import monotonic_ms
from async_tracker.instance.counts import Counts
from async_tracker.instance.runs import Run
from async_tracker.store.counters import Counted
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Ended

BATCH = 500
"""Runs in one write: what the server does in well under a millisecond or two."""

_NEW_KEPT = 1_000
"""New runs that are kept before a start takes them in itself: the writer does so within tens of ms, unless its loop is blocked."""

ENDED_KEPT = 2_000
"""Ended runs that are remembered during an outage. If there are more, the list in Redis is compared once it is back."""


@dataclass(slots=True)
class Batch:
    """What one write carries, with the runs themselves: it may have to be put back."""

    started: list[Run]
    records: list[RunRecord]
    ended: list[Ended]

    def was_stored(self) -> None:
        """Redis has taken it."""
        for run in self.started:
            run.stored = True


class Journal:
    """The runs of one process. Every method may be called from any thread and returns at once.

    `start` only appends. What reads the journal next, the writer as a rule, takes the new runs in: those that have ended by then, which
    are most, are only counted, and the others are kept. That keeps the hooks short and spares the worker cache misses.
    """

    def __init__(self, *, wake: Callable[[], None]) -> None:
        """``wake`` is called when there is something to write: from any thread, and often."""
        self._lock = threading.Lock()
        self._wake = wake
        self.new: dict[Run, Run] = {}
        """The runs that have started and are not taken in, in that order. What pops a run must settle it: the journal takes it in, or
        the thread that ends it counts it in its own tally."""
        self._runs: dict[str, Run] = {}
        self._here: dict[str, int] = {}
        self._dirty: dict[str, float] = {}
        """Runs that are not stored as they are, and since when, on the monotonic clock; the longest first."""
        self._ended: dict[str, str] = {}
        self._oldest_end_ms = math.inf
        """Since when the end waits that has waited longest."""
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

    @property
    def unlisted(self) -> int:
        """Number of runs in flight that are in no write yet: too young, or Redis is away."""
        with self._lock:
            self._take_in()
            return sum(not run.sent for run in self._runs.values())

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
        if len(self.new) > _NEW_KEPT:  # the writer cannot: threads start runs while its loop is blocked
            with self._lock:
                self._take_in()
        self._wake()

    def take_in(self) -> None:
        """Sort the new runs into those that are in flight and those that have ended."""
        with self._lock:
            self._take_in()

    def _take_in(self, *, before_ms: float = math.inf) -> None:
        """Sort the new runs into those in flight and those that have ended, except those that started after ``before_ms``.

        An end that comes at the same time, in another thread, either is seen here or sees ``is_taken_in`` and waits for the lock.
        """
        for run in list(self.new):
            if run.started_mono_ms > before_ms:
                break
            if self.new.pop(run, None) is not None:
                self._sort(run)

    def take_in_run(self, run: Run) -> None:
        """Take in this one of the new runs; does nothing if it is taken in already."""
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
            self.counts.count_end(run)

    def _enter(self, run: Run) -> None:
        self._runs[run.token] = run
        self._here[run.ref] = self._here.get(run.ref, 0) + 1
        self._dirty[run.token] = run.started_mono_ms

    def resume(self, run: Run) -> None:
        """An ended run is in flight again."""
        with self._lock:
            self._take_in()
            self._ended.pop(run.token, None)
            self.counts.add(ended=-1)
            run.in_flight = True
            self._enter(run)
        self._wake()

    def touch(self, run: Run) -> None:
        """Something that is stored of the run has changed."""
        with self._lock:
            self._take_in()
            if run.token not in self._runs:
                return
            self._dirty.setdefault(run.token, monotonic_ms())
        self._wake()

    def end(self, run: Run) -> None:
        """A run has ended; its ``outcome`` says how, or `count_end` later. A run that was never sent leaves no trace except its count."""
        run.in_flight = False
        if run.is_taken_in:
            with self._lock:
                self.counts.count_end(run)
                must_write = self._end(run)
            if must_write:
                self._wake()

    def _end(self, run: Run) -> bool:
        name, ref = run.token, run.ref
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
        self._note_end(name, ref)
        if len(self._ended) > ENDED_KEPT:
            self.dropped += len(self._ended)
            self._forget_ended()
        return True

    def _note_end(self, name: str, ref: str) -> None:
        if not self._ended:
            self._oldest_end_ms = monotonic_ms()
        self._ended.setdefault(name, ref)

    def _forget_ended(self) -> None:
        """Let the list in Redis say later which jobs have ended; it cannot where an older run of the same job is in flight."""
        self._mixed_up.update(ref for ref in self._ended.values() if ref in self._here)
        self._ended.clear()
        self.must_compare = True

    def count_end(self, run: Run) -> None:
        """Count how a run ended that has ended before."""
        with self._lock:
            self._take_in()
            self.counts.count_end(run)

    def take_new_totals(self) -> dict[str, int]:
        """Take by how much the totals have grown since the last call; only the loop's thread may call it."""
        with self._lock:
            self._take_in()
            self.counts.count_starts(self._runs.values())
            return self.counts.take_new_totals()

    def sort_counts(self, *, within: float) -> None:
        """Sort what was counted into totals and buckets, for at most ``within`` seconds; only the loop's thread may call it."""
        with self._lock:
            self.counts.sort(within=within)

    def take_new_counts(self) -> list[Counted]:
        """Take what was counted since the last call, for the history; only the loop's thread may call it."""
        with self._lock:
            self._take_in()
            self.counts.count_starts(self._runs.values())
            return self.counts.take_new()

    def count_left(self, function: str | None, queue: str | None, outcome: str) -> None:
        """Count for the history what became of a dead instance's run."""
        with self._lock:
            self.counts.count_left(function, queue, outcome)

    def discard(self, run: Run) -> None:
        """Treat a run as if it had never started: it is not to be tracked. How it ends may be counted all the same."""
        if self.new.pop(run, None) is not None:
            run.in_flight = False
            run.is_taken_in = True
            return
        with self._lock:
            if run.token in self._runs:
                self.counts.add(started=-1, ended=-1)
            if run.is_start_counted:
                self.counts.take_start_back(run)
        self.end(run)

    @property
    def has_work(self) -> bool:
        """Whether there is something to write."""
        return bool(self.new or self._dirty or self._ended or self.must_compare)

    def is_due(self, *, before_ms: float, ended_before_ms: float = math.inf) -> bool:
        """Whether a run has changed before ``before_ms`` on the monotonic clock or is prompt, or has ended before ``ended_before_ms``."""
        with self._lock:
            self._take_in(before_ms=before_ms)
            if self.must_compare or (self._ended and self._oldest_end_ms <= ended_before_ms):
                return True
            return next(iter(self._dirty.values()), math.inf) <= before_ms or bool(self._prompt())

    def _prompt(self) -> list[str]:
        """Give the runs that do not wait for their age, most often none."""
        return [name for name in self._dirty if self._runs[name].is_prompt]

    def take(self, *, before_ms: float = math.inf) -> Batch | None:
        """Take what is to be written next, without the runs that changed after ``before_ms`` and are not prompt.

        ``put_back`` returns it when the write fails. Ends have to wait for a comparison where there must be one.
        """
        with self._lock:
            self._take_in(before_ms=before_ms)
            ripe = dict.fromkeys(itertools.takewhile(lambda name: self._dirty[name] <= before_ms, self._dirty))
            names = list(itertools.islice({**ripe, **dict.fromkeys(self._prompt())}, BATCH))
            started = [self._runs[name] for name in names]
            for name in names:
                del self._dirty[name]
            ended: list[Ended] = []
            if not self.must_compare:
                for name in list(self._ended)[:BATCH]:
                    job_id = self._ended.pop(name)
                    ended.append(Ended(job_id=job_id, token=name, last_here=job_id not in self._here))
                self._take_over({end.job_id for end in ended if not end.last_here})
            for run in started:
                run.sent = True
            if not started and not ended:
                return None
            return Batch(started, [run.record(superseded=self._here.get(run.ref, 1) - 1) for run in started], ended)

    def _take_over(self, refs: set[str]) -> None:
        """The list in Redis keeps these jobs for runs that are still in flight: their ends must be written, however soon they come."""
        for run in self._runs.values() if refs else ():
            if run.ref in refs:
                run.sent = True

    def put_back(self, batch: Batch) -> None:
        """The write failed, or its answer did not come: what is still true is to be written again."""
        with self._lock:
            again = {run.token: run.started_mono_ms for run in batch.started if run.token in self._runs}
            self._dirty = {**again, **self._dirty}
            for run in batch.started:
                if run.token not in self._runs:
                    self._note_end(run.token, run.ref)
            for end in batch.ended:
                if end.token is not None:
                    self._note_end(end.token, end.job_id)

    def compare(self, listed: Iterable[str]) -> list[Ended]:
        """Tell which of the jobs that Redis lists for this instance are not in flight; they are written off.

        So are records that may be those of another run than the one in flight, which is written again.
        """
        with self._lock:
            self._take_in()
            self.must_compare = False
            gone = [Ended(job_id=job_id, token=None) for job_id in listed if job_id not in self._here]
            mixed_up, self._mixed_up = self._mixed_up & self._here.keys(), set()
            again = {name: run.started_mono_ms for name, run in self._runs.items() if run.ref in mixed_up}
            self._dirty = {**again, **self._dirty}
            return gone + [Ended(job_id=job_id, token=None, last_here=False) for job_id in mixed_up]

    def compare_again(self, gone: Iterable[Ended]) -> None:
        """What was to be written off may still be there."""
        with self._lock:
            self.must_compare = True
            self._mixed_up.update(end.job_id for end in gone if not end.last_here)

    def write_all_again(self) -> None:
        """Write every run in flight again: Redis has lost what was written."""
        with self._lock:
            self._take_in()
            self._forget_ended()
            self._dirty = {name: run.started_mono_ms for name, run in self._runs.items()}
        self._wake()

    def disown(self) -> list[Run]:
        """The instance was declared dead: other workers get its jobs. Returns its runs, which are not owned any more."""
        with self._lock:
            self._take_in()
            self.counts.count_starts(self._runs.values())
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
            return lost
