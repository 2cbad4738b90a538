"""Questions about what was: two round trips each."""

import asyncio
from time import monotonic
from typing import Any

from async_tracker.history.series import (
    MINUTE,
    Collected,
    Trends,
    checked_span,
    checked_step,
    history_of,
    is_of_hours,
    matching_names,
    minutes_of,
    reach_of,
    steps_of,
    trends_of,
    window_of,
)
from async_tracker.records import History, Stats
from async_tracker.store.reading import HistoryIndex, HistoryRead, Reading

_STRETCH = 0.005
"""Seconds for which strings are unpacked before the other tasks of the loop have a turn."""


class HistoryReader:
    """The history of one namespace. Each method raises StorageError when Redis refuses, and ConfigError for a span that is not kept."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def window(self, window: Any, *, function: str | None, queue: str | None) -> Stats:
        """Give the counters of the last ``window`` seconds, in whole minutes; beyond a day, in whole hours."""
        window = checked_span("window", window)
        index = await self._reading.history_index()
        minutes = minutes_of(index.now_ms, window)
        kept = Collected(minutes, size=len(minutes), by_pair=True, open_minutes=frozenset(index.open_minutes))
        await self._collect(kept, index, function, queue, by_hour=True)
        return window_of(kept, now_ms=index.now_ms, window=window)

    async def trends(self, window: Any, step: Any) -> Trends:
        """Give the counters of the last ``window`` seconds and, out of the same reading, how many runs started in each step of it."""
        window = checked_span("window", window)
        step = checked_step(step, since=window)
        index = await self._reading.history_index()
        minutes = minutes_of(index.now_ms, window)
        size = int(step // MINUTE)
        kept = Collected(minutes, size=len(minutes), by_pair=True, open_minutes=frozenset(index.open_minutes), trend_size=size)
        await self._collect(kept, index, None, None, by_hour=is_of_hours(step))
        return trends_of(kept, now_ms=index.now_ms, window=window)

    async def history(self, *, since: Any, step: Any, function: str | None, queue: str | None) -> History:
        """Give one point for each step of the last ``since`` seconds."""
        since = checked_span("since", since)
        step = checked_step(step, since=since)
        index = await self._reading.history_index()
        steps = steps_of(index.now_ms, since, step)
        kept = Collected(range(steps.start, steps.stop), size=steps.step, open_minutes=frozenset(index.open_minutes))
        await self._collect(kept, index, function, queue, by_hour=is_of_hours(step))
        return history_of(kept, steps, index.deploys, function=function, queue=queue, step=step)

    async def _collect(self, kept: Collected, index: HistoryIndex, function: str | None, queue: str | None, *, by_hour: bool) -> None:
        wanted = list(matching_names(index.series, function, queue))
        reach = reach_of(kept.minutes, open_minutes=index.open_minutes, open_hours=index.open_hours, by_hour=by_hour)
        read = await self._reading.history(wanted, minutes=reach.minutes, hours=reach.hours, days=reach.days)
        await _take_in(kept, read, wanted)


async def _take_in(kept: Collected, read: HistoryRead, wanted: list[str]) -> None:
    """Add all that was read, whole hours first: what was rolled up between two replies counts once."""
    until = monotonic() + _STRETCH
    for add, packed in ((kept.add_day, read.packed_days), (kept.add_hour, read.packed)):
        for (span, name), raw in packed.items():
            add(span, name, raw)
            if monotonic() > until:
                await asyncio.sleep(0)
                until = monotonic() + _STRETCH
    for minute, fields in read.minutes.items():
        kept.add_minute(minute, fields, wanted)
    for day, fields in read.samples_of_days.items():
        kept.add_samples_of_day(day, fields)
    for hour, fields in read.samples.items():
        kept.add_samples(hour, fields)
