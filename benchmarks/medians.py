"""Medians with intervals, by order statistics: nothing is assumed of how the measurements are distributed."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A median, and between which measurements the true one lies with probability ``coverage``."""

    median: float
    low: float
    high: float
    coverage: float
    rounds: int

    def to_dict(self) -> dict[str, float]:
        """Give it JSON-ready."""
        return {"median": self.median, "low": self.low, "high": self.high, "coverage": self.coverage, "rounds": self.rounds}


def estimate(values: Sequence[float], *, confidence: float = 0.95) -> Estimate:
    """Estimate the median: the narrowest symmetric interval of measurements that covers it with at least ``confidence``.

    With fewer than six measurements there is none: then it is all of them, and ``coverage`` says how little that is.

    >>> estimate([3.0, 1.0, 2.0])
    Estimate(median=2.0, low=1.0, high=3.0, coverage=0.75, rounds=3)
    >>> found = estimate([float(number) for number in range(1, 26)])
    >>> found.median, found.low, found.high, round(found.coverage, 3)
    (13.0, 8.0, 18.0, 0.957)
    """
    ordered = sorted(values)
    count = len(ordered)
    if not count:
        raise ValueError("there is nothing to estimate from: no measurement was made")
    cut = max((k for k in range(count // 2 + 1) if _coverage(count, k) >= confidence), default=0)
    return Estimate(
        median=statistics.median(ordered), low=ordered[cut], high=ordered[count - 1 - cut], coverage=_coverage(count, cut), rounds=count
    )


def _coverage(count: int, cut: int) -> float:
    """Probability that the median lies between the measurements that remain when ``cut`` are taken off each end."""
    missed: float = sum(math.comb(count, k) for k in range(cut + 1)) / 2**count
    return max(1.0 - 2.0 * missed, 0.0)


def quantile(values: Sequence[float], share: float) -> float:
    """Give the smallest measurement that at least ``share`` of all do not exceed.

    >>> quantile([4.0, 1.0, 3.0, 2.0], 0.5), quantile([4.0, 1.0, 3.0, 2.0], 0.99)
    (2.0, 4.0)
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
