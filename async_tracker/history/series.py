"""From what is kept to what people ask: windows and steps. Pure."""

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.errors import ConfigError
from async_tracker.history.histogram import Histogram, Stretch
from async_tracker.history.minutes import Sample, mean_of, read_samples, spans_of
from async_tracker.history.packing import Record, Span, read_record, records_in
from async_tracker.records import OUTCOMES, Deploy, FunctionStats, History, HistoryPoint, QueueSample, Stats
from async_tracker.store.counters import read_counted_name, short_name
from async_tracker.store.run_record import LAST_MOMENT_MS
from async_tracker.store.writable import writable

MINUTES_KEPT = 86_400.0
"""For how many seconds minutes are kept."""

HOURS_KEPT = 30 * 86_400.0
"""For how many seconds hours are kept."""

MINUTE = 60.0
HOUR = 3_600.0

Pair = tuple[str | None, str | None]


def checked_span(name: str, seconds: Any) -> float:
    """Give a number of seconds of which there is a history. Raises ConfigError for any other.

    >>> checked_span("window", 3600)
    3600.0
    >>> checked_span("window", 0)
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: window (0) must be more than 0 and at most 2592000 s: minutes are kept for 24 hours, hours for 30 days
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0.0 < seconds <= HOURS_KEPT:
        kept = "minutes are kept for 24 hours, hours for 30 days"
        raise ConfigError(f"{name} ({seconds!r:.40}) must be more than 0 and at most {HOURS_KEPT:.0f} s: {kept}")
    return float(seconds)


def checked_step(step: Any, *, since: float) -> float:
    """Give a step of whole minutes, or of whole hours where ``since`` is longer than minutes are kept. Raises ConfigError for any other.

    >>> checked_step(300, since=3600.0)
    300.0
    >>> checked_step(90, since=3600.0)
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: step (90) must be whole minutes: write step=60.0 or step=120.0
    >>> checked_step(60, since=604800.0)
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: step (60) must be whole hours where since is more than 24 hours: write step=3600.0
    """
    seconds = checked_span("step", step)
    unit, whole = (MINUTE, "minutes") if since <= MINUTES_KEPT else (HOUR, "hours where since is more than 24 hours")
    if seconds % unit:
        below = math.floor(seconds / unit) * unit
        near = f"step={below} or step={below + unit}" if below else f"step={unit}"
        raise ConfigError(f"step ({seconds:g}) must be whole {whole}: write {near}")
    if seconds > math.ceil(since / unit) * unit:
        raise ConfigError(f"step ({seconds:g} s) must not be longer than since ({since:g} s)")
    return seconds


def minutes_of(now_ms: int, seconds: float) -> range:
    """Give the minutes of the last so many seconds, in whole hours where they are more than minutes are kept for; the last is not over.

    >>> minutes_of(600_000, 60.0), minutes_of(600_000, 61.0)
    (range(10, 11), range(9, 11))
    >>> minutes_of(600_000 + 30 * 3_600_000, 86_401.0)
    range(360, 1811)
    """
    last = now_ms // 60_000
    if seconds <= MINUTES_KEPT:
        return range(last - math.ceil(seconds / MINUTE) + 1, last + 1)
    return range((last // 60 - math.ceil(seconds / HOUR) + 1) * 60, last + 1)


def is_of_hours(step: float) -> bool:
    """Tell whether a step is made of whole hours of the server's clock, and not of minutes."""
    return step % HOUR == 0


def steps_of(now_ms: int, since: float, step: float) -> range:
    """Give the first minute of each step; the last step ends with the minute that is running, one of whole hours with the hour.

    >>> steps_of(600_000, 300.0, 120.0)
    range(5, 11, 2)
    >>> steps_of(600_000 + 30 * 3_600_000, 172_800.0, 86_400.0)
    range(-1020, 1860, 1440)
    """
    size, count = int(step // MINUTE), math.ceil(since / step)
    last = now_ms // 60_000
    end = (last // 60 + 1) * 60 if is_of_hours(step) else last + 1
    return range(end - count * size, end, size)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reach:
    """What must be read of some minutes: those that are in no string, hours by the minute, and days by the hour."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    """Of these the minutes are read: they reach out of the span, or are not rolled up."""
    days: tuple[int, ...]


def reach_of(minutes: range, *, open_minutes: Iterable[int], open_hours: Iterable[int], by_hour: bool) -> Reach:
    """Tell what must be read; ``by_hour``: hours that lie within may be read as such.

    >>> reach_of(range(30, 210), open_minutes=[208, 209, 500], open_hours=[3], by_hour=True)
    Reach(minutes=(208, 209), hours=(0, 3), days=(0,))
    >>> reach_of(range(30, 210), open_minutes=[], open_hours=[], by_hour=False).hours
    (0, 1, 2, 3)
    """
    hours = range(minutes.start // 60, minutes[-1] // 60 + 1)
    not_rolled_up = {*open_hours, *(minute // 60 for minute in open_minutes), hours[-1]}
    whole = [hour for hour in hours if by_hour and hour * 60 in minutes and hour * 60 + 59 in minutes]
    return Reach(
        minutes=tuple(minute for minute in open_minutes if minute in minutes),
        hours=tuple(hour for hour in hours if hour not in whole or hour in not_rolled_up),
        days=tuple(sorted({hour // 24 for hour in whole})),
    )


def matching_names(names: Iterable[str], function: str | None, queue: str | None) -> Iterator[str]:
    """Give those names of pairs that are of this function and queue; what is no such name is left out."""
    function, queue = short_name(function), short_name(queue)
    for name in names:
        try:
            of_function, of_queue = read_counted_name(name)
        except (ValueError, TypeError):
            continue
        if function in (None, of_function) and queue in (None, of_queue):
            yield name


@dataclass(slots=True)
class Collected:
    """What is kept of some steps, as it is read: the spans of each, of all pairs together or of each pair, and the samples."""

    minutes: range
    """All that is asked for."""
    size: int
    """Minutes in a step; what lies before the first minute belongs to none."""
    by_pair: bool = False
    open_minutes: frozenset[int] = frozenset()
    """The minutes that were not packed when it was asked for."""
    trend_size: int = 0
    """Minutes in a step of the trends; 0 where none are asked for."""
    trends: dict[Pair, dict[int, int]] = field(default_factory=dict)
    """How many runs of each pair have started, by the number of the step since 1970."""
    known: set[int] = field(default_factory=set)
    """The steps of the trends of which something is known."""
    spans: dict[tuple[int, Pair | None], Span | Record] = field(default_factory=dict)
    samples: dict[int, list[Sample]] = field(default_factory=dict)
    skipped: int = 0
    _whole: set[tuple[int, str]] = field(default_factory=set)
    """The hours and pairs that were read as whole hours: their minutes are left alone."""
    _packed: set[tuple[int, str]] = field(default_factory=set)
    _whole_samples: set[int] = field(default_factory=set)

    def add_day(self, day: int, name: str, packed: bytes) -> None:
        """Add the packed hours of a day; it comes before the minutes of these hours."""
        for place, records in records_in(packed).items():
            hour = day * 24 + place
            if hour * 60 in self.minutes and hour * 60 + 59 in self.minutes and self._add_records(hour * 60, name, records):
                self._whole.add((hour, name))

    def add_hour(self, hour: int, name: str, packed: bytes) -> None:
        """Add the packed minutes of an hour; it comes before the minutes that are not packed."""
        if (hour, name) in self._whole:
            return
        for place, records in records_in(packed).items():
            minute = hour * 60 + place
            if minute in self.minutes and self._add_records(minute, name, records) and minute in self.open_minutes:
                self._packed.add((minute, name))

    def add_minute(self, minute: int, fields: Mapping[str, str], wanted: Iterable[str]) -> None:
        """Add the counters of a minute, of the pairs that are wanted, unless they were packed meanwhile."""
        spans = spans_of(fields)
        for name in wanted:
            is_told = (minute, name) in self._packed or (minute // 60, name) in self._whole
            if name in spans and minute in self.minutes and not is_told:
                self._add(minute, name, spans[name])

    def add_samples_of_day(self, day: int, fields: Mapping[str, str]) -> None:
        """Add the samples of the hours of a day; they come before those of their minutes."""
        found, skipped = read_samples(fields)
        self.skipped += skipped
        for place, sample in found.items():
            hour = day * 24 + place
            if hour * 60 in self.minutes and hour * 60 + 59 in self.minutes:
                self._whole_samples.add(hour)
                self._note(hour * 60)
                self.samples.setdefault(self._step(hour * 60), []).append(sample)

    def add_samples(self, hour: int, fields: Mapping[str, str]) -> None:
        """Add the samples of the minutes of an hour."""
        if hour in self._whole_samples:
            return
        found, skipped = read_samples(fields)
        self.skipped += skipped
        for place, sample in found.items():
            if hour * 60 + place in self.minutes:
                self._note(hour * 60 + place)
                self.samples.setdefault(self._step(hour * 60 + place), []).append(sample)

    def _step(self, minute: int) -> int:
        return (minute - self.minutes.start) // self.size

    def _add(self, minute: int, name: str, found: Span | Record) -> None:
        at = self._step(minute), read_counted_name(name) if self.by_pair else None
        if self.trend_size:
            self._note(minute, at[1], found.counters.get("started", 0))
        before = self.spans.get(at)
        if before is None:
            self.spans[at] = found  # it is of no one else; most are told as they were read
            return
        if isinstance(before, Record):
            span = self.spans[at] = Span()
            span.merge(before)
            before = span
        before.merge(found)

    def _add_records(self, minute: int, name: str, records: Sequence[bytes]) -> bool:
        """Add the newest record that can be read of a minute, or of the hour that begins with it. Returns whether there is one."""
        for packed in reversed(records):
            try:
                record = read_record(packed)
            except ValueError:
                self.skipped += 1
                continue
            self._add(minute, name, record)
            return True
        return False

    def _note(self, minute: int, pair: Pair | None = None, started: int = 0) -> None:
        """Note for the trends that something is known of this minute, or of the hour that begins with it, and what has started then."""
        if not self.trend_size:
            return
        step = minute // self.trend_size
        self.known.add(step)
        if pair is not None and started:
            counts = self.trends.setdefault(pair, {})
            counts[step] = counts.get(step, 0) + started


def window_of(kept: Collected, *, now_ms: int, window: float) -> Stats:
    """Make the counters of a window of what was collected by pair."""
    covered = max(now_ms - kept.minutes.start * 60_000, 1) / 60_000
    rows = {pair or (None, None): span for (_, pair), span in kept.spans.items()}
    functions = [
        FunctionStats(
            function=function,
            queue=queue,
            **{name: span.counters.get(name, 0) for name in _COUNTED},
            run_time=span.counters.get("run_ms", 0) / 1000.0,
            queue_wait=span.counters.get("wait_ms", 0) / 1000.0,
            per_minute=span.counters.get("started", 0) / covered,
            **_quantiles(span),
        )
        for (function, queue), span in sorted(rows.items(), key=lambda row: (row[0][0] or "", row[0][1] or ""))
    ]
    sums: dict[str, Any] = {name: sum(getattr(row, name) for row in functions) for name in (*_COUNTED, "run_time", "queue_wait")}
    return Stats(functions=tuple(functions), window=window, **sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trends:
    """The counters of a window, and how many runs of each function and queue have started a minute in each step of it, the oldest first.

    Steps begin at whole multiples of their length, those of hours with an hour of the clock: one that began before the window is left
    out, and the last reaches to now. None stands for a step of which nothing is known.
    """

    stats: Stats
    started: Mapping[Pair, tuple[float | None, ...]]


def trends_of(kept: Collected, *, now_ms: int, window: float) -> Trends:
    """Make the trends of what was collected by pair."""
    size, minutes = kept.trend_size, kept.minutes
    steps = range(math.ceil(minutes.start / size), minutes[-1] // size + 1)
    lasted = {step: float(size) for step in steps}
    lasted[steps[-1]] = max(now_ms / 60_000 - steps[-1] * size, _LEAST_OF_A_STEP)
    return Trends(
        stats=window_of(kept, now_ms=now_ms, window=window),
        started={
            pair: tuple(counts.get(step, 0) / minutes_long if step in kept.known else None for step, minutes_long in lasted.items())
            for pair, counts in kept.trends.items()
        },
    )


_LEAST_OF_A_STEP = 0.5
"""Minutes for which the step that is running counts at least: of its first seconds no rate can be told."""


def deploys_of(stored: Iterable[str], since_ms: int) -> Iterator[Deploy]:
    """Read the deploys since a moment; what is none is left out.

    >>> [deploy.version for deploy in deploys_of(["1:one", "9000:2:b", "x"], 5_000)]
    ['2:b']
    """
    for item in stored:
        at_ms, colon, version = item.partition(":")
        if colon and at_ms.isdecimal() and since_ms <= int(at_ms) <= LAST_MOMENT_MS:
            yield Deploy(version=version, at=from_ms(int(at_ms)))


def history_of(kept: Collected, steps: range, deploys: Iterable[str], *, function: str | None, queue: str | None, step: float) -> History:
    """Make the points of a history, the oldest first, with the deploys as they are stored."""
    points = tuple(_point(minute, kept.spans.get((at, None)), kept.samples.get(at, ()), queue=queue) for at, minute in enumerate(steps))
    return History(
        function=function,
        queue=queue,
        step=step,
        points=points,
        deploys=tuple(deploys_of(deploys, steps.start * 60_000)),
        skipped=kept.skipped,
    )


_COUNTED = ("started", *OUTCOMES)


_WritablePoint, _WritableQueue = writable(HistoryPoint), writable(QueueSample)
_NO_SPAN = Span()


def _point(minute: int, span: Span | Record | None, samples: Sequence[Sample], *, queue: str | None) -> HistoryPoint:
    known = span or _NO_SPAN
    count_of = known.counters.get
    mean = (samples[0] if len(samples) == 1 else mean_of(samples)) if samples else None  # of a day by the minute there are 1,440
    made = _WritablePoint()
    made.at = from_ms(minute * 60_000)
    made.is_gap = span is None and mean is None
    made.is_late = known.late
    for name in _COUNTED:
        setattr(made, name, count_of(name, 0))
    made.run_time_p50, made.run_time_p95, made.run_time_p99, made.run_time_max = _told(known.run)
    made.queue_wait_p50, made.queue_wait_p95, made.queue_wait_p99, made.queue_wait_max = _told(known.wait)
    made.busy, made.slots = (float(mean.busy), float(mean.slots)) if mean is not None else (None, None)
    made.queues = _queues_in(mean, queue) if mean is not None else ()
    made.instances = float(mean.instances) if mean is not None and mean.instances is not None else None
    made.orphans = mean.orphans if mean is not None else None
    made.__class__ = HistoryPoint
    point: HistoryPoint = made
    return point


def _queues_in(mean: Sample, queue: str | None) -> tuple[QueueSample, ...]:
    queues = sorted(mean.queues.items()) if len(mean.queues) > 1 else mean.queues.items()
    return tuple([_queue_sample(name, depth, oldest) for name, (depth, oldest) in queues if queue is None or name == queue])


def _queue_sample(name: str, depth: int, oldest: float | None) -> QueueSample:
    made = _WritableQueue()
    made.queue, made.depth, made.oldest_wait = name, depth, oldest
    made.__class__ = QueueSample
    sample: QueueSample = made
    return sample


def _quantiles(span: Span | Record) -> dict[str, Any]:
    told = zip(("run_time", "queue_wait"), (_told(span.run), _told(span.wait)), strict=True)
    return {f"{name}_{part}": value for name, values in told for part, value in zip(("p50", "p95", "p99", "max"), values, strict=True)}


_QUANTILES = (0.5, 0.95, 0.99)


def _told(histogram: Histogram | Stretch) -> tuple[float | None, float | None, float | None, float | None]:
    """Give what is said of one histogram, in seconds: three quantiles, and the longest.

    >>> _told(Histogram({9: 10}, 6)), _told(Histogram())
    ((0.00548, 0.00548, 0.00548, 0.006), (None, None, None, None))
    """
    p50, p95, p99 = histogram.quantiles_ms(_QUANTILES)
    if p50 is None:
        return None, None, None, None
    return _rounded(p50), _rounded(p95), _rounded(p99), histogram.max_ms / 1000.0


@functools.lru_cache(maxsize=1_024)
def _rounded(ms: float | None) -> float | None:
    return float(f"{ms / 1000.0:.3g}") if ms is not None else None
