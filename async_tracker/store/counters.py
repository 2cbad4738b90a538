"""The names of the counters, how a total is read back, and what a batch carries for the minute: pure."""

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

from async_tracker.records import OUTCOMES

PAIRS_KEPT = 1_000
"""How many pairs of function and queue one process counts apart; the others share one name."""

OTHER = "(other)"
"""What stands for the functions beyond those."""

OTHERS_BEGIN = f'["{OTHER}",null,'
"""How their counters begin in ``stats``."""

NAME_LENGTH = 120
"""Characters of a function's or a queue's name that stand in counters and in the history; a longer one is cut, and ends in a digest."""

RUN, WAIT = "r", "w"
"""How the buckets of run time and of queue wait are called in a minute: ``r12`` is bucket 12, ``rmax`` the longest in ms."""

COUNTERS_IN_A_BATCH = 100
"""How many counters one message carries at most, of all time or for the minute: the server adds them in well under a millisecond."""

COUNTERS = ("started", *OUTCOMES, "run_ms", "wait_ms")

BOUNDS = (8, 11, 16, 20, 23, 28, 31, 34, 39, 46, 51, 58, 66, 75)
"""The buckets at whose upper ends the histograms of all time are cut: from 5 ms to 57 minutes."""

BEYOND = "inf"
"""What stands in the place of a bound for all that took longer: ``rinf``."""

STALLS, DEATHS, QUARANTINES = "stalls", "instances_dead", "quarantined"
"""Counters of all time that stand in ``stats`` beside those of functions."""


@functools.lru_cache(maxsize=PAIRS_KEPT * len(COUNTERS))
def field_name(function: str | None, queue: str | None, counter: str) -> str:
    """Name one counter as it stands in ``stats``; a long name is cut, as in the history.

    >>> field_name("send_email", None, "failed"), len(field_name("x" * 10_000, None, "failed"))
    ('["send_email",null,"failed"]', 138)
    """
    return json.dumps([short_name(function), short_name(queue), counter], separators=(",", ":"))


def parse_stats(stored: Mapping[str, str]) -> dict[tuple[str | None, str | None], dict[str, int]]:
    """Read the counters of ``stats`` back; what is none of ours is left out.

    >>> parse_stats({'["send_email",null,"failed"]': "2", "rubbish": "1"})
    {('send_email', None): {'failed': 2}}
    """
    parsed: dict[tuple[str | None, str | None], dict[str, int]] = {}
    for name, value in stored.items():
        try:
            function, queue, counter = json.loads(name)
            total = int(value)
        except (ValueError, TypeError):
            continue
        if counter in COUNTERS:
            parsed.setdefault((function, queue), {})[counter] = total
    return parsed


@dataclass(frozen=True, slots=True)
class Counted:
    """What one function on one queue has counted: counter -> by how much it has grown; of ``rmax`` and ``wmax`` the longest."""

    pair: str
    counters: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CountedBatch:
    """What an instance has counted and Redis is to add once: it is sent as it is, under its number, until Redis has it."""

    number: int
    since_ms: float
    """When the first of it was counted, on the monotonic clock of the process."""
    counted: tuple[Counted, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalsBatch:
    """By how much counters of all time have grown, to be added after another batch and once: it is sent as it is until Redis has it."""

    number: int
    after: int
    """The number of the batch that comes before it; 0 for the first."""
    grown: Mapping[str, int]
    """Field of ``stats`` -> by how much it has grown."""


@functools.lru_cache(maxsize=2 * PAIRS_KEPT)
def counted_name(function: str | None, queue: str | None) -> str:
    """Name a function on a queue as it stands in the history.

    >>> counted_name("send_email", None), len(counted_name("x" * 10_000, "mail"))
    ('["send_email",null]', 131)
    """
    return json.dumps([short_name(function), short_name(queue)], separators=(",", ":"))


def short_name(name: str | None) -> str | None:
    """Give a name as it stands in the history: a long one is cut, and ends in a digest of the whole."""
    if name is None or len(name) <= NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{name[: NAME_LENGTH - 9]}~{digest}"


@functools.lru_cache(maxsize=2 * PAIRS_KEPT)
def read_counted_name(pair: str) -> tuple[str | None, str | None]:
    """Read function and queue back. Raises ValueError for what is no such name.

    >>> read_counted_name('["send_email",null]')
    ('send_email', None)
    """
    function, queue = json.loads(pair)
    if not all(name is None or isinstance(name, str) for name in (function, queue)):
        raise ValueError(f"{pair!r} names no function and queue")
    return function, queue


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """How long the runs of one function on one queue took and waited, of all time. Counts are one for each bound, and one beyond them."""

    function: str | None
    queue: str | None
    since_ms: int
    run_counts: tuple[int, ...]
    run_ms: int
    wait_counts: tuple[int, ...]
    wait_ms: int


@dataclass(frozen=True, slots=True)
class TotalsIndex:
    """The counters of all time as they are stored, the pairs of which there are durations, and how many jobs are quarantined."""

    stats: dict[str, str]
    series: list[str]
    quarantined: int


def read_total(pair: str, fields: Mapping[str, str]) -> Total:
    """Read one total; what is none of ours is left out. Raises ValueError where the pair names no function and queue.

    >>> total = read_total('["send",null]', {"since_ms": "5", "r8": "2", "rinf": "1", "run_ms": "4000", "rubbish": "x"})
    >>> total.function, total.since_ms, total.run_counts[0], total.run_counts[-1], sum(total.wait_counts), total.run_ms
    ('send', 5, 2, 1, 0, 4000)
    """
    function, queue = read_counted_name(pair)
    counted = {name: int(value) for name, value in fields.items() if value.isdecimal() and len(value) < _DIGITS}
    return Total(
        function=function,
        queue=queue,
        since_ms=counted.get("since_ms", 0),
        run_counts=tuple(counted.get(f"{RUN}{bound}", 0) for bound in (*BOUNDS, BEYOND)),
        run_ms=counted.get("run_ms", 0),
        wait_counts=tuple(counted.get(f"{WAIT}{bound}", 0) for bound in (*BOUNDS, BEYOND)),
        wait_ms=counted.get("wait_ms", 0),
    )


_DIGITS = 16


def counters_in_parts(counters: Mapping[str, int], *, size: int) -> Iterator[dict[str, int]]:
    """Cut counters into parts of at most ``size``.

    >>> list(counters_in_parts({"a": 1, "b": 2, "c": 3}, size=2))
    [{'a': 1, 'b': 2}, {'c': 3}]
    """
    left = iter(counters.items())
    while part := dict(islice(left, size)):
        yield part


def in_parts(counted: Iterable[Counted], *, size: int) -> Iterator[tuple[Counted, ...]]:
    """Cut what was counted into parts of at most ``size`` counters.

    >>> counted = [Counted("a", {"started": 1, "r1": 1, "r2": 1}), Counted("b", {"started": 1})]
    >>> [[(item.pair, len(item.counters)) for item in part] for part in in_parts(counted, size=2)]
    [[('a', 2)], [('a', 1), ('b', 1)]]
    """
    part: list[Counted] = []
    room = size
    for item in counted:
        left = list(item.counters.items())
        while left:
            taken, left = left[:room], left[room:]
            part.append(Counted(item.pair, dict(taken)))
            room -= len(taken)
            if not room:
                yield tuple(part)
                part, room = [], size
    if part:
        yield tuple(part)
