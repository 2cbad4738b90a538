"""How much has happened in each minute since the page is looked at, from the counters of all time."""

from collections import deque

from async_tracker.records import Stats

KEPT = 60
_COUNTED = ("started", "succeeded", "failed", "recovered")
_RATES_OVER_MS = 60_000
_LEAST_MS = 4_000
_GAP_MS = 30_000
"""Counters that were not read for longer are not spread over minutes in which they were not seen to grow."""

Minute = list[int]
"""When it began, in milliseconds, then how many have started, succeeded, failed and been recovered."""


class Minutes:
    """The last sixty minutes, as far as they were watched, and the rates of the last one.

    >>> def stats(started): return Stats(functions=(), **dict.fromkeys(Stats.__slots__[1:], 0) | {"started": started})
    >>> minutes = Minutes()
    >>> for at_ms, started in [(60_000, 5), (65_000, 7), (130_000, 8), (135_000, 18)]:
    ...     minutes.add(stats(started), at_ms=at_ms)
    >>> minutes.shown()
    [[60000, 2, 0, 0, 0], [120000, 10, 0, 0, 0]]
    """

    def __init__(self) -> None:
        self._minutes: deque[Minute] = deque(maxlen=KEPT)
        self._samples: deque[tuple[int, Stats]] = deque()

    def add(self, stats: Stats, *, at_ms: int) -> None:
        """Take the counters, as they were at this time of the server."""
        last_ms, last = self._samples[-1] if self._samples else (at_ms, stats)
        if not 0 <= at_ms - last_ms <= _GAP_MS or any(getattr(stats, name) < getattr(last, name) for name in _COUNTED):
            self._samples.clear()  # there was no viewer meanwhile, the clock was set, or another namespace stands there now
            last = stats
        minute_ms = at_ms - at_ms % 60_000
        if not self._minutes or self._minutes[-1][0] != minute_ms:
            self._minutes.append([minute_ms, *(0 for _ in _COUNTED)])
        for place, name in enumerate(_COUNTED, start=1):
            self._minutes[-1][place] += getattr(stats, name) - getattr(last, name)
        self._samples.append((at_ms, stats))
        while self._samples[0][0] < at_ms - _RATES_OVER_MS:
            self._samples.popleft()

    def shown(self) -> list[Minute]:
        """Give the minutes, the oldest first."""
        return [list(minute) for minute in self._minutes]

    def per_minute(self) -> dict[tuple[str | None, str | None], float]:
        """Tell how many runs of each function and queue have started a minute, over the last one; empty until that can be told."""
        if not self._samples or self._samples[-1][0] - self._samples[0][0] < _LEAST_MS:
            return {}
        (first_ms, first), (last_ms, last) = self._samples[0], self._samples[-1]
        before = {(row.function, row.queue): row.started for row in first.functions}
        factor = 60_000 / (last_ms - first_ms)
        return {
            (row.function, row.queue): round((row.started - before.get((row.function, row.queue), 0)) * factor, 1) for row in last.functions
        }
