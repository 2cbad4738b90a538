"""Questions about what was: two round trips each."""

from typing import Any

from async_tracker.history.series import Kept, checked_span, checked_step, history_of, kept_of, matching_names, minutes_of, window_of
from async_tracker.records import History, Stats
from async_tracker.store.reading import Reading


class HistoryReader:
    """The history of one namespace. Each method raises StorageError when Redis refuses, and ConfigError for a span that is not kept."""

    def __init__(self, reading: Reading) -> None:
        self._reading = reading

    async def window(self, window: Any, *, function: str | None, queue: str | None) -> Stats:
        """Give the counters of the last ``window`` seconds, in whole minutes."""
        window = checked_span("window", window)
        now_ms, kept = await self._kept(window, function, queue)
        return window_of(kept, minutes_of(now_ms, window), now_ms=now_ms, window=window)

    async def history(self, *, since: Any, step: Any, function: str | None, queue: str | None) -> History:
        """Give one point for each step of the last ``since`` seconds."""
        since = checked_span("since", since)
        step = checked_step(step, since=since)
        now_ms, kept = await self._kept(since + step, function, queue)
        return history_of(kept, function=function, queue=queue, now_ms=now_ms, since=since, step=step)

    async def _kept(self, seconds: float, function: str | None, queue: str | None) -> tuple[int, Kept]:
        now_ms, series, unpacked = await self._reading.history_index()
        minutes = minutes_of(now_ms, seconds)
        wanted = list(matching_names(series, function, queue))
        hours = range(minutes.start // 60, minutes[-1] // 60 + 1)
        of_minutes, packed, samples = await self._reading.history(hours, wanted, [minute for minute in unpacked if minute in minutes])
        return now_ms, kept_of(of_minutes, packed, samples, wanted=wanted)
