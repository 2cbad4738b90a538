"""How fast counters grow just now, from their values as often as they were read: pure."""

from collections import deque
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Name = TypeVar("Name", bound=Hashable)

_OVER = 30.0
"""Seconds over which a rate is taken: what workers count arrives with their heartbeats, some seconds apart."""
_LEAST = 3.0


class Rates(Generic[Name]):
    """The counters of the last half minute.

    >>> rates = Rates[str]()
    >>> for at, started in [(0.0, 5), (10.0, 15), (40.0, 35)]:
    ...     rates.add({"send": started}, at=at)
    >>> rates.per_minute()
    {'send': 40.0}
    """

    def __init__(self) -> None:
        self._samples: deque[tuple[float, Mapping[Name, int]]] = deque()

    def add(self, counters: Mapping[Name, int], *, at: float) -> None:
        """Take the counters as they were at this time, in seconds of one clock; a counter that goes back begins anew."""
        if self._samples and any(counters.get(name, value) < value for name, value in self._samples[-1][1].items()):
            self._samples.clear()
        self._samples.append((at, counters))
        while len(self._samples) > 2 and self._samples[1][0] <= at - _OVER:
            self._samples.popleft()

    def per_minute(self) -> dict[Name, float]:
        """Tell by how much each counter grows in a minute; empty until that can be told."""
        if not self._samples or self._samples[-1][0] - self._samples[0][0] < _LEAST:
            return {}
        (first_at, first), (last_at, last) = self._samples[0], self._samples[-1]
        factor = 60.0 / (last_at - first_at)
        return {name: (value - first.get(name, value)) * factor for name, value in last.items()}
