"""A histogram of durations that merges by addition: pure.

The buckets are those of DDSketch (Masson, Rim, Lee: "DDSketch: a fast and fully-mergeable quantile sketch with relative-error
guarantees", PVLDB 12(12), 2019): bucket ``k`` holds what is longer than ``GAMMA ** (k - 1)`` ms and not longer than ``GAMMA ** k`` ms.
So the sum of two histograms is the histogram of both, the count is exact, and every quantile is right within ``ERROR``.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate

ERROR = 0.1
"""By how much of itself a quantile may be wrong, from 1 ms to 24 h."""

GAMMA = (1.0 + ERROR) / (1.0 - ERROR)

_PER_LOG = 1.0 / math.log(GAMMA)
_LONGEST_MS = 86_400_000.0
TOP = math.ceil(math.log(_LONGEST_MS) * _PER_LOG)
"""The last bucket: all that takes 24 h or longer is in it or in the one before. Bucket 0 holds all that takes 1 ms at most."""


def bucket_of(ms: float) -> int:
    """Tell in which bucket a duration counts; what is no duration, as a negative one by two clocks, counts as none at all.

    >>> bucket_of(-3.0), bucket_of(0.0), bucket_of(1.0), bucket_of(1.2), bucket_of(1.3), bucket_of(1e12) == TOP
    (0, 0, 0, 1, 2, True)
    """
    if not ms > 1.0:
        return 0
    return math.ceil(math.log(ms) * _PER_LOG) if ms < _LONGEST_MS else TOP


def upper_bound_ms(bucket: int) -> float:
    """Give the longest duration of a bucket.

    >>> upper_bound_ms(0), round(upper_bound_ms(1), 3)
    (1.0, 1.222)
    """
    return float(GAMMA**bucket)


def middle_ms(bucket: int) -> float:
    """Give the duration that is nearest, in proportion, to both ends of a bucket: within ``ERROR`` of all in it.

    >>> round(middle_ms(0), 3), round(middle_ms(1), 3)
    (0.9, 1.1)
    """
    return 2.0 * upper_bound_ms(bucket) / (GAMMA + 1.0)


_MIDDLES = tuple(middle_ms(bucket) for bucket in range(TOP + 1))


class Stretch:
    """A histogram as it is read: how many durations there were in each bucket from ``low`` on, and the longest.

    A question reads them by the thousand, and most are told as they are: then no `Histogram` is made of them.
    """

    __slots__ = ("counts", "low", "max_ms")

    def __init__(self, low: int, counts: Sequence[int], max_ms: int) -> None:
        self.low = low
        self.counts = counts
        self.max_ms = max_ms

    def quantiles_ms(self, parts: Sequence[float]) -> list[float | None]:
        """Do what `Histogram.quantiles_ms` does.

        >>> [round(ms) for ms in Stretch(9, [1, 0, 3], 8).quantiles_ms([0.0, 0.5, 1.0])], Stretch(0, [], 0).quantiles_ms([0.5])
        ([5, 8, 8], [None])
        """
        passed = list(accumulate(self.counts))
        if not passed or not passed[-1]:
            return [None] * len(parts)
        low, last, longest = self.low, passed[-1] - 1, self.max_ms or math.inf
        found: list[float | None] = []
        for part in parts:
            middle = _MIDDLES[low + bisect_right(passed, part * last)]
            found.append(middle if middle < longest else longest)
        return found


class Histogram:
    """How many durations there were of each length, and the longest. Two are merged by adding one to the other."""

    __slots__ = ("buckets", "max_ms")

    def __init__(self, buckets: Mapping[int, int] | None = None, max_ms: int = 0) -> None:
        """``buckets`` is bucket -> count, and ``max_ms`` the longest duration in whole milliseconds, rounded up; 0 if it is not known."""
        self.buckets = dict(buckets or {})
        self.max_ms = max_ms

    def add(self, durations_ms: Iterable[float]) -> None:
        """Count durations.

        >>> histogram = Histogram()
        >>> histogram.add([5.0, 5.1, 900.2])
        >>> histogram.count, histogram.max_ms
        (3, 901)
        """
        buckets, longest = self.buckets, 0.0
        count_of = buckets.get
        for ms in durations_ms:  # each run passes here twice, so `bucket_of` is written out
            bucket = 0 if not ms > 1.0 else math.ceil(math.log(ms) * _PER_LOG) if ms < _LONGEST_MS else TOP
            buckets[bucket] = count_of(bucket, 0) + 1
            if ms > longest:
                longest = ms
        self.max_ms = max(self.max_ms, math.ceil(min(longest, 1e15)))

    def merge(self, other: "Histogram | Stretch") -> None:
        """Add what another histogram counted."""
        buckets = self.buckets
        count_of = buckets.get
        for bucket, count in enumerate(other.counts, other.low) if isinstance(other, Stretch) else other.buckets.items():
            if count:
                buckets[bucket] = count_of(bucket, 0) + count
        self.max_ms = max(self.max_ms, other.max_ms)

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.buckets.values())

    def quantiles_ms(self, parts: Sequence[float]) -> list[float | None]:
        """Give, for each of these parts of all, in ascending order, the duration than which it is not longer, within ``ERROR`` of itself;
        None where nothing was counted.

        >>> histogram = Histogram()
        >>> histogram.add(range(1, 1001))
        >>> [round(ms) for ms in histogram.quantiles_ms([0.0, 0.5, 0.95, 1.0])], Histogram().quantiles_ms([0.5])
        ([1, 453, 1000, 1000], [None])
        """
        buckets = self.buckets
        bounds = sorted(buckets)
        passed = list(accumulate(map(buckets.__getitem__, bounds)))
        if not passed:
            return [None] * len(parts)
        last, longest = passed[-1] - 1, self.max_ms or math.inf
        found: list[float | None] = []
        for part in parts:
            place = min(bisect_right(passed, part * last), len(bounds) - 1)
            found.append(min(_MIDDLES[bounds[place]], longest))
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and (self.buckets, self.max_ms) == (other.buckets, other.max_ms)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Histogram of {self.count}, the longest {self.max_ms} ms>"
