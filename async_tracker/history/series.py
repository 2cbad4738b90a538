"""From the minutes that are kept to what people ask: windows and steps. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.errors import ConfigError
from async_tracker.history.histogram import Histogram
from async_tracker.history.minutes import Sample, read_sample, spans_of
from async_tracker.history.packing import Span, entries, unpack
from async_tracker.records import OUTCOMES, FunctionStats, History, HistoryPoint, QueueSample, Stats
from async_tracker.store.counters import read_counted_name

KEPT_SECONDS = 86_400.0
"""For how long minutes are kept."""

MINUTE = 60.0

Pair = tuple[str | None, str | None]


def checked_span(name: str, seconds: Any) -> float:
    """Give a number of seconds of which there is a history. Raises ConfigError for any other.

    >>> checked_span("window", 3600)
    3600.0
    >>> checked_span("window", 0)
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: window (0) must be more than 0 and at most 86400 s: minutes are kept for 24 hours
    """
    is_number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    if not is_number or not 0.0 < seconds <= KEPT_SECONDS:
        raise ConfigError(f"{name} ({seconds!r}) must be more than 0 and at most {KEPT_SECONDS:.0f} s: minutes are kept for 24 hours")
    return float(seconds)


def checked_step(step: Any, *, since: float) -> float:
    """Give a step of whole minutes. Raises ConfigError for any other.

    >>> checked_step(300, since=3600.0)
    300.0
    >>> checked_step(90, since=3600.0)
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: step (90) must be whole minutes: write step=60.0 or step=120.0
    """
    seconds = checked_span("step", step)
    if seconds % MINUTE:
        whole = math.floor(seconds / MINUTE) * MINUTE
        near = f"step={whole} or step={whole + MINUTE}" if whole else f"step={MINUTE}"
        raise ConfigError(f"step ({seconds:g}) must be whole minutes: write {near}")
    if seconds > math.ceil(since / MINUTE) * MINUTE:
        raise ConfigError(f"step ({seconds:g} s) must not be longer than since ({since:g} s)")
    return seconds


@dataclass(slots=True)
class Kept:
    """What is kept of some minutes: their spans by function and queue, and their samples."""

    spans: dict[tuple[int, Pair], Span] = field(default_factory=dict)
    samples: dict[int, Sample] = field(default_factory=dict)
    skipped: int = 0


def kept_of(
    open_minutes: Mapping[int, Mapping[str, str]],
    packed: Mapping[tuple[int, str], bytes],
    samples: Mapping[int, Mapping[str, str]],
    *,
    wanted: Iterable[str],
) -> Kept:
    """Read what Redis keeps of these pairs: minutes that are packed stand for what is still there of them unpacked."""
    kept, pairs = Kept(), {name: read_counted_name(name) for name in wanted}
    for (hour, name), raw in packed.items():
        for place, record in entries(raw):
            try:
                span = unpack(record)
            except ValueError:
                kept.skipped += 1
                continue
            kept.spans[hour * 60 + place, pairs[name]] = span
    for minute, fields in open_minutes.items():
        for name, span in spans_of(fields).items():
            if name in pairs:
                kept.spans.setdefault((minute, pairs[name]), span)
    for hour, of_hour in samples.items():
        for name, raw_sample in of_hour.items():
            sample = read_sample(raw_sample)
            at = name.partition(":")[0]
            if sample is None or not at.isdecimal():
                kept.skipped += 1
                continue
            kept.samples.setdefault(hour * 60 + int(at), Sample()).merge(sample)
    return kept


def minutes_of(now_ms: int, seconds: float) -> range:
    """Give the minutes of the last so many seconds; the last one is not over.

    >>> minutes_of(600_000, 60.0), minutes_of(600_000, 61.0)
    (range(10, 11), range(9, 11))
    """
    last = now_ms // 60_000
    return range(last - math.ceil(seconds / MINUTE) + 1, last + 1)


def matching_names(names: Iterable[str], function: str | None, queue: str | None) -> Iterator[str]:
    """Give those names of pairs that are of this function and queue; what is no such name is left out."""
    for name in names:
        try:
            of_function, of_queue = read_counted_name(name)
        except (ValueError, TypeError):
            continue
        if function in (None, of_function) and queue in (None, of_queue):
            yield name


def window_of(kept: Kept, minutes: range, *, now_ms: int, window: float) -> Stats:
    """Make the counters of a window: the whole minutes that it touches."""
    rows: dict[Pair, Span] = {}
    for (minute, pair), span in kept.spans.items():
        if minute in minutes:
            rows.setdefault(pair, Span()).merge(span)
    covered = max(now_ms - minutes.start * 60_000, 1) / 60_000
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


def history_of(kept: Kept, *, function: str | None, queue: str | None, now_ms: int, since: float, step: float) -> History:
    """Make the points of a history, the oldest first; the last step ends with the minute that is running."""
    size, last = int(step // MINUTE), now_ms // 60_000
    count = math.ceil(since / step)
    first = last - count * size + 1
    of_steps: dict[int, Span] = {}
    for (minute, _), span in kept.spans.items():
        if first <= minute <= last:
            of_steps.setdefault((minute - first) // size, Span()).merge(span)
    points = tuple(_point(first + at * size, of_steps.get(at), _samples(kept, first + at * size, size), queue=queue) for at in range(count))
    return History(function=function, queue=queue, step=step, points=points, skipped=kept.skipped)


_COUNTED = ("started", *OUTCOMES)


def _samples(kept: Kept, first: int, size: int) -> list[Sample]:
    return [kept.samples[minute] for minute in range(first, first + size) if minute in kept.samples]


def _point(minute: int, span: Span | None, samples: Sequence[Sample], *, queue: str | None) -> HistoryPoint:
    at = from_ms(minute * 60_000)
    if span is None and not samples:
        return HistoryPoint(at=at, is_gap=True)
    known = span or Span()
    return HistoryPoint(
        at=at,
        is_gap=False,
        is_late=known.late,
        **{name: known.counters.get(name, 0) for name in _COUNTED},
        **_quantiles(known),
        busy=sum(sample.busy for sample in samples) / len(samples) if samples else None,
        slots=sum(sample.slots for sample in samples) / len(samples) if samples else None,
        queues=_fullest(samples, queue),
    )


def _fullest(samples: Sequence[Sample], queue: str | None) -> tuple[QueueSample, ...]:
    found: dict[str, tuple[int, float | None]] = {}
    for sample in samples:
        for name, (depth, oldest) in sample.queues.items():
            if queue in (None, name):
                before_depth, before_oldest = found.get(name, (0, None))
                waits = [wait for wait in (before_oldest, oldest) if wait is not None]
                found[name] = (max(before_depth, depth), max(waits, default=None))
    return tuple(QueueSample(queue=name, depth=depth, oldest_wait=oldest) for name, (depth, oldest) in sorted(found.items()))


def _quantiles(span: Span) -> dict[str, Any]:
    return {**_of_histogram("run_time", span.run), **_of_histogram("queue_wait", span.wait)}


def _of_histogram(name: str, histogram: Histogram) -> dict[str, float | None]:
    """Give what is said of one histogram, in seconds.

    >>> _of_histogram("run_time", Histogram({9: 10}, 6))
    {'run_time_p50': 0.00548, 'run_time_p95': 0.00548, 'run_time_p99': 0.00548, 'run_time_max': 0.006}
    """
    named = {f"{name}_p{q}": histogram.quantile_ms(q / 100) for q in (50, 95, 99)}
    longest = histogram.max_ms / 1000.0 if histogram.buckets else None
    rounded = {key: float(f"{ms / 1000.0:.3g}") if ms is not None else None for key, ms in named.items()}
    return {**rounded, f"{name}_max": longest}
