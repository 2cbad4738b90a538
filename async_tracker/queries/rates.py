"""How fast counters grow just now, from their values as often as they were read: pure, and sooner than any window can tell."""

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)


class Rates(Generic[Name]):
    """The counters of the last ``over`` seconds; of less than ``least`` seconds nothing can be told.

    >>> rates = Rates[str](over=30.0)
    >>> for at, started in [(0.0, 5), (10.0, 15), (40.0, 35)]:
    ...     rates.add({"send": started}, at=at)
    >>> rates.per_minute()
    {'send': 40.0}
    """

    def __init__(self, *, over: float, least: float = 3.0) -> None:
        self._over = over
        self._least = least
        self._samples: deque[tuple[float, Mapping[Name, int]]] = deque()

    def add(self, counters: Mapping[Name, int], *, at: float) -> None:
        """Take the counters as they were at this time, in seconds of one clock.

        All begins anew where a counter has gone back, where the clock has, and where nothing was read for longer than ``over``.
        """
        if self._samples:
            last_at, last = self._samples[-1]
            if not 0.0 <= at - last_at <= self._over or any(counters.get(name, value) < value for name, value in last.items()):
                self._samples.clear()
        self._samples.append((at, counters))
        while len(self._samples) > 2 and self._samples[1][0] <= at - self._over:
            self._samples.popleft()

    def per_minute(self) -> dict[Name, float]:
        """Tell by how much each counter grows in a minute; empty until that can be told.

        One that is new, or that begins anew, has grown from 0.
        """
        if not self._samples or self._samples[-1][0] - self._samples[0][0] < self._least:
            return {}
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        factor = 60.0 / (last_at - first_at)
        grown = {name: value - first.get(name, 0) for name, value in last.items()}
        return {name: (more if more >= 0 else last[name]) * factor for name, more in grown.items()}
