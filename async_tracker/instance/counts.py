"""Counters, gathered in the process and written with the beat: totals per function and queue, so that writing them twice is harmless."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from async_tracker.instance.runs import Run
from async_tracker.store.counters import PAIRS_KEPT, field_name

OTHER = "(other)"


class Tally:
    """What one thread counts by itself, without a lock: the runs of one function that succeeded before the journal took them in."""

    __slots__ = ("run_ms", "runs", "wait_ms")

    def __init__(self) -> None:
        self.runs = 0
        self.run_ms = 0.0
        self.wait_ms = 0.0


class Counts:
    """The totals of one process. Not thread-safe: the journal counts under its lock, and a tally belongs to one thread."""

    def __init__(self) -> None:
        self._totals: dict[tuple[str | None, str | None], defaultdict[str, int]] = {}
        self._tallies: dict[tuple[str | None, str | None], Tally] = {}
        self._acknowledged: dict[str, int] = {}
        self._started = 0
        self._ended = 0

    @property
    def started(self) -> int:
        """Number of runs that have started."""
        return self._started + self._tallied()

    @property
    def ended(self) -> int:
        """Number of runs that have ended."""
        return self._ended + self._tallied()

    def _tallied(self) -> int:
        return sum(tally.runs for tally in self._tallies.values())

    def add(self, *, started: int = 0, ended: int = 0) -> None:
        """Count runs, whatever their function and outcome."""
        self._started += started
        self._ended += ended

    def tally(self, function: str | None, queue: str | None) -> Tally:
        """Give the tally of a function on a queue. Only the thread that calls `unsent` may count in it."""
        return self._tallies.setdefault((function, queue), Tally())

    def _cast_up(self) -> None:
        """Add what was tallied to the totals."""
        for (function, queue), tally in self._tallies.items():
            if not tally.runs:
                continue
            totals = self.of(function, queue)
            runs, run_ms, wait_ms = tally.runs, int(tally.run_ms), int(tally.wait_ms)
            self.add(started=runs, ended=runs)
            totals["started"] += runs
            totals["succeeded"] += runs
            totals["run_ms"] += run_ms
            if wait_ms:
                totals["wait_ms"] += wait_ms
            tally.runs = 0
            tally.run_ms -= run_ms
            tally.wait_ms -= wait_ms

    def count_starts(self, runs: Iterable[Run]) -> None:
        """Count the starts of runs in flight; most runs end sooner, and then start and end are counted together."""
        for run in runs:
            if not run.is_start_counted and (run.function is not None or not run.expects_name):
                _count_start(run, self.of(run.function, run.queue))

    def take_start_back(self, run: Run) -> None:
        """Count a run whose start was counted as one that has not started."""
        _count_start(run, self.of(run.function, run.queue), by=-1)

    def count_end(self, run: Run) -> None:
        """Count how a run ended, if that is known and not counted yet, and its start with it."""
        if run.outcome is None or run.is_end_counted:
            return
        run.is_end_counted = True
        totals = self.of(run.function, run.queue)
        if not run.is_start_counted:
            _count_start(run, totals)
        totals[run.outcome] += 1
        totals["run_ms"] += int(run.ended_mono_ms - run.started_mono_ms)

    def of(self, function: str | None, queue: str | None) -> defaultdict[str, int]:
        """Give the totals of a function on a queue, by counter, to add to."""
        totals = self._totals.get((function, queue))
        if totals is None:
            key = (function, queue) if len(self._totals) < PAIRS_KEPT else (OTHER, queue)
            totals = self._totals.setdefault(key, defaultdict(int))
        return totals

    def unsent(self) -> dict[str, int]:
        """Give the totals that have changed since they were last acknowledged, by field name."""
        self._cast_up()
        changed = {}
        for (function, queue), totals in self._totals.items():
            for counter, total in totals.items():
                name = field_name(function, queue, counter)
                if self._acknowledged.get(name) != total:
                    changed[name] = total
        return changed

    def acknowledge(self, sent: Mapping[str, int]) -> None:
        """Remember what Redis has."""
        self._acknowledged.update(sent)

    def resend_all(self) -> None:
        """Redis may have lost them: the totals are sent again. What it still has of them is not counted twice."""
        self._acknowledged.clear()

    def start_anew(self) -> None:
        """Another instance id reports from here on: what was reported under the old one stays there."""
        self._cast_up()
        for (function, queue), totals in self._totals.items():
            for counter in totals:
                totals[counter] -= self._acknowledged.get(field_name(function, queue, counter), 0)
        self._acknowledged.clear()


def _count_start(run: Run, totals: defaultdict[str, int], *, by: int = 1) -> None:
    run.is_start_counted = True
    totals["started"] += by
    if run.due_at_ms is not None and run.started_at_ms > run.due_at_ms:
        totals["wait_ms"] += by * (run.started_at_ms - run.due_at_ms)
