"""How many runs start in a minute just now, from the counters of all time: sooner than any window can tell."""

from collections import deque

from async_tracker.records import Stats

_OVER_MS = 60_000
_LEAST_MS = 4_000
_GAP_MS = 30_000
"""Counters that were not read for longer say nothing of the last minute."""


class Rates:
    """The counters of the last minute, as often as they were read.

    >>> from async_tracker.records import FunctionStats
    >>> def stats(started):
    ...     row = FunctionStats(function="send", queue="mail", started=started)
    ...     return Stats(functions=(row,), **dict.fromkeys(Stats.__slots__[1:-1], 0) | {"started": started})
    >>> rates = Rates()
    >>> for at_ms, started in [(60_000, 5), (65_000, 7), (90_000, 20)]:
    ...     rates.add(stats(started), at_ms=at_ms)
    >>> rates.per_minute()
    {('send', 'mail'): 30.0}
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[int, Stats]] = deque()

    def add(self, stats: Stats, *, at_ms: int) -> None:
        """Take the counters, as they were at this time of the server."""
        last_ms, last = self._samples[-1] if self._samples else (at_ms, stats)
        if not 0 <= at_ms - last_ms <= _GAP_MS or stats.started < last.started:
            self._samples.clear()  # there was no viewer meanwhile, the clock was set, or another namespace stands there now
        self._samples.append((at_ms, stats))
        while self._samples[0][0] < at_ms - _OVER_MS:
            self._samples.popleft()

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
