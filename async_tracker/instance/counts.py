"""Counters, gathered in the process and written with the beat.

What is new of the counters of all time; and what is new since the last batch, with the histograms of run time and of queue wait, for the
minute in which it arrives.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from time import monotonic

from async_tracker.history.histogram import Histogram, bucket_of
from async_tracker.instance.runs import Run
from async_tracker.records import FAILURES
from async_tracker.store.counters import OTHER, PAIRS_KEPT, RUN, WAIT, Counted, counted_name, field_name

Pair = tuple[str | None, str | None]
"""A function and its queue."""

Tally = list[float]
"""Run time and wait in ms, in turn, of each run of one function that succeeded before the journal took it in.

The thread that ran it notes both in one step at the end of the list, without a lock, and what reads the list takes from its beginning:
so no more than one thread may take, and any may note."""

_OTHERS_KEPT = 100
"""Of how many queues the functions beyond those that are kept are counted apart."""

_IN_A_STRETCH = 400
"""Numbers that are sorted into buckets between two looks at the clock: some 0.2 ms."""


class _Times:
    """Durations of the runs of one pair: those that are in no bucket yet, and the buckets since the last batch."""

    __slots__ = ("run", "runs", "wait", "waits")

    def __init__(self) -> None:
        self.runs: list[float] = []
        self.waits: list[float] = []
        self.run = Histogram()
        self.wait = Histogram()


class Counts:
    """The totals of one process. Not thread-safe, except that any thread may note in a tally: the journal counts under its lock."""

    def __init__(self) -> None:
        self._totals: dict[Pair, defaultdict[str, int]] = {}
        self._taken: dict[Pair, dict[str, int]] = {}
        """The totals as they were when what is new of them was taken last."""
        self._batched: dict[Pair, dict[str, int]] = {}
        """The totals as they were when the last batch for the history was made."""
        self._times: dict[Pair, _Times] = {}
        self._tallies: dict[Pair, Tally] = {}
        self._rests: dict[Pair, list[float]] = {}
        """What is left of the milliseconds of tallied runs and of their waits, where these make no whole one."""
        self._started = 0
        self._ended = 0
        self._failed = 0

    @property
    def started(self) -> int:
        """Number of runs that have started."""
        return self._started + self._tallied()

    @property
    def ended(self) -> int:
        """Number of runs that have ended."""
        return self._ended + self._tallied()

    @property
    def failed(self) -> int:
        """Number of runs that have ended with an error, or by their timeout. None of these is in a tally."""
        return self._failed

    def _tallied(self) -> int:
        return sum(map(len, list(self._tallies.values()))) // 2

    def add(self, *, started: int = 0, ended: int = 0) -> None:
        """Count runs, whatever their function and outcome."""
        self._started += started
        self._ended += ended

    def tally(self, function: str | None, queue: str | None) -> Tally:
        """Give the tally of a function on a queue, for durations to be noted in, as `Tally` says; may be called from any thread."""
        return self._tallies.setdefault(kept_pair(function, queue, self._tallies), [])

    def sort(self, *, within: float) -> None:
        """Sort what was noted into totals and buckets, for at most ``within`` seconds; the rest is left to the next call."""
        until = monotonic() + within
        for pair, tally in list(self._tallies.items()):
            while tally and monotonic() < until:
                self._cast_up(pair, tally, _IN_A_STRETCH)
        for times in self._times.values():
            while (times.runs or times.waits) and monotonic() < until:
                _fill(times, _IN_A_STRETCH)

    def _cast_up(self, pair: Pair, tally: Tally, length: int) -> None:
        """Add the first ``length`` numbers of a tally to the totals and the buckets."""
        taken = tally[:length]  # in one step: others may note more while it is looked at
        del tally[: len(taken)]
        run_ms, waited_ms = taken[0::2], [ms if ms > 0.0 else 0.0 for ms in taken[1::2]]
        self.add(started=len(run_ms), ended=len(run_ms))
        totals, times = self.of(*pair), self._times_of(*pair)
        totals["started"] += len(run_ms)
        totals["succeeded"] += len(run_ms)
        times.run.add(run_ms)
        times.wait.add(waited_ms)
        # Whole milliseconds are counted, and many runs are shorter than one: what is left over goes on to the next.
        rest = self._rests.setdefault(pair, [0.0, 0.0])
        for at, counter, durations in ((0, "run_ms", run_ms), (1, "wait_ms", waited_ms)):
            whole, rest[at] = divmod(rest[at] + sum(durations), 1.0)
            if whole:
                totals[counter] += int(whole)

    def count_starts(self, runs: Iterable[Run]) -> None:
        """Count the starts of runs in flight; most runs end sooner, and then start and end are counted together."""
        for run in runs:
            if not run.is_start_counted and (run.function is not None or not run.expects_name):
                self._count_start(run)

    def _count_start(self, run: Run) -> None:
        run.is_start_counted = True
        totals = self.of(run.function, run.queue)
        totals["started"] += 1
        if run.due_at_ms is not None:
            waited_ms = max(run.started_at_ms - run.due_at_ms, 0)
            if waited_ms:
                totals["wait_ms"] += waited_ms
            self._times_of(run.function, run.queue).waits.append(waited_ms)

    def take_start_back(self, run: Run) -> None:
        """Count a run whose start was counted as one that has not started."""
        totals = self.of(run.function, run.queue)
        totals["started"] -= 1
        if run.due_at_ms is not None:
            waited_ms = max(run.started_at_ms - run.due_at_ms, 0)
            if waited_ms:
                totals["wait_ms"] -= waited_ms
            buckets, bucket = self._times_of(run.function, run.queue).wait.buckets, bucket_of(waited_ms)
            buckets[bucket] = buckets.get(bucket, 0) - 1

    def count_end(self, run: Run) -> None:
        """Count how a run ended, if that is known and not counted yet, and its start with it."""
        if run.outcome is None or run.is_end_counted:
            return
        run.is_end_counted = True
        if not run.is_start_counted:
            self._count_start(run)
        totals = self.of(run.function, run.queue)
        totals[run.outcome] += 1
        self._failed += run.outcome in FAILURES
        run_ms = max(run.ended_mono_ms - run.started_mono_ms, 0.0)
        totals["run_ms"] += int(run_ms)
        self._times_of(run.function, run.queue).runs.append(run_ms)

    def count_left(self, function: str | None, queue: str | None, outcome: str) -> None:
        """Count for the minute, and in no total, what became of a dead instance's run: Redis has counted it in the totals itself."""
        pair = kept_pair(function, queue, self._totals)
        self.of(*pair)
        batched = self._batched.setdefault(pair, {})
        batched[outcome] = batched.get(outcome, 0) - 1

    def of(self, function: str | None, queue: str | None) -> defaultdict[str, int]:
        """Give the totals of a function on a queue, by counter, to add to."""
        pair = kept_pair(function, queue, self._totals)
        totals = self._totals.get(pair)
        if totals is None:
            totals = self._totals[pair] = defaultdict(int)
        return totals

    def _times_of(self, function: str | None, queue: str | None) -> _Times:
        pair = kept_pair(function, queue, self._totals)
        times = self._times.get(pair)
        if times is None:
            times = self._times[pair] = _Times()
        return times

    # what is new, of all time

    def take_new_totals(self) -> dict[str, int]:
        """Take by how much the totals have grown since the last call, by field name."""
        self._cast_up_all()
        return {
            field_name(*pair, counter): added
            for pair, totals in self._totals.items()
            for counter, added in _grown(totals, self._taken.setdefault(pair, {})).items()
        }

    def _cast_up_all(self) -> None:
        for pair, tally in list(self._tallies.items()):
            if tally:
                self._cast_up(pair, tally, len(tally))

    # what is new, for the minute

    def take_new(self) -> list[Counted]:
        """Take what was counted since the last call: counters by how much they have grown, and the buckets of both histograms."""
        self._cast_up_all()
        found = []
        for pair, totals in self._totals.items():
            grown = _grown(totals, self._batched.setdefault(pair, {}))
            times = self._times.pop(pair, None)
            if times is not None:
                _fill(times, len(times.runs) + len(times.waits))
                grown |= _buckets(RUN, times.run) | _buckets(WAIT, times.wait)
            if grown:
                found.append(Counted(counted_name(*pair), grown))
        return found


def kept_pair(function: str | None, queue: str | None, known: Mapping[Pair, object]) -> Pair:
    """Tell under which pair a function on a queue is counted, beside those that are ``known``: its own, as long as there is room.

    >>> full = {(f"f{number}", "mail"): 0 for number in range(PAIRS_KEPT)}
    >>> kept_pair("g", "mail", {}), kept_pair("f7", "mail", full), kept_pair("g", "mail", full)
    (('g', 'mail'), ('f7', 'mail'), ('(other)', 'mail'))
    >>> kept_pair("g", "mail", full | {(OTHER, f"q{number}"): 0 for number in range(_OTHERS_KEPT)})
    ('(other)', None)
    """
    pair = (function, queue)
    if pair in known or len(known) < PAIRS_KEPT:
        return pair
    of_queue = (OTHER, queue)
    return of_queue if of_queue in known or len(known) < PAIRS_KEPT + _OTHERS_KEPT else (OTHER, None)


def _grown(totals: Mapping[str, int], before: dict[str, int]) -> dict[str, int]:
    """Tell by how much totals have grown since they were as ``before``, which is as they are now from here on.

    >>> before = {"started": 2, "failed": 1}
    >>> _grown({"started": 5, "failed": 1}, before), before
    ({'started': 3}, {'started': 5, 'failed': 1})
    """
    grown = {}
    for counter in totals.keys() | before.keys():
        added = totals.get(counter, 0) - before.get(counter, 0)
        if added:
            grown[counter] = added
            before[counter] = before.get(counter, 0) + added
    return grown


def _fill(times: _Times, length: int) -> None:
    """Sort the first ``length`` durations of both kinds into their buckets."""
    times.run.add(times.runs[:length])
    times.wait.add(times.waits[:length])
    del times.runs[:length], times.waits[:length]


def _buckets(kind: str, histogram: Histogram) -> dict[str, int]:
    counters = {f"{kind}{bucket}": count for bucket, count in histogram.buckets.items() if count}
    if counters and histogram.max_ms:
        counters[f"{kind}max"] = histogram.max_ms
    return counters
