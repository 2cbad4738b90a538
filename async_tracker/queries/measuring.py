"""From what is stored to the numbers of a whole namespace: pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.queries.answers import stats_of
from async_tracker.queries.picture import Picture
from async_tracker.records import Durations, InFlight, Instance, Measures
from async_tracker.store.counters import DEATHS, QUARANTINES, STALLS, Total, TotalsIndex

Pair = tuple[str | None, str | None]
"""A function and its queue."""


def in_flight_of(picture: Picture, counted: Mapping[str, Mapping[Pair, int]]) -> tuple[Counter[Pair], int]:
    """Add up the runs in flight by function and queue, and the orphans: a run of a dead instance is one. ``counted`` is by instance."""
    in_flight: Counter[Pair] = Counter()
    orphans = 0
    for instance_id, of_instance in counted.items():
        if picture.is_live(instance_id):
            for pair, count in of_instance.items():
                in_flight[pair] += count
        else:
            orphans += sum(of_instance.values())
    return in_flight, orphans


def measures_of(
    picture: Picture,
    instances: Iterable[Instance],
    counted: Mapping[str, Mapping[Pair, int]],
    *,
    index: TotalsIndex,
    totals: Iterable[Total],
) -> Measures:
    """Make the numbers of a namespace of what was read of it."""
    runs, orphans = in_flight_of(picture, counted)
    in_flight = sorted(runs.items(), key=lambda entry: _by_name(*entry[0]))
    return Measures(
        taken_at=from_ms(picture.now_ms),
        instances=tuple(instances),
        in_flight=tuple(InFlight(function=function, queue=queue, count=count) for (function, queue), count in in_flight),
        orphans=orphans,
        quarantined=index.quarantined,
        stats=stats_of(index.stats, None),
        durations=tuple(_durations_of(total) for total in sorted(totals, key=_by_age)),
        stalls=_whole(index.stats.get(STALLS)),
        instances_dead=_whole(index.stats.get(DEATHS)),
        quarantines=_whole(index.stats.get(QUARANTINES)),
    )


def _by_name(function: str | None, queue: str | None) -> tuple[str, str]:
    return function or "", queue or ""


def _by_age(total: Total) -> tuple[Any, ...]:
    return total.since_ms, *_by_name(total.function, total.queue)


def _durations_of(total: Total) -> Durations:
    return Durations(
        function=total.function,
        queue=total.queue,
        since=from_ms(total.since_ms),
        run_time_counts=total.run_counts,
        run_time=total.run_ms / 1000.0,
        queue_wait_counts=total.wait_counts,
        queue_wait=total.wait_ms / 1000.0,
    )


def _whole(stored: str | None) -> int:
    """Read a counter; 0 where there is none, or where another program wrote something else.

    >>> _whole("3"), _whole(None), _whole("many")
    (3, 0, 0)
    """
    return int(stored) if stored is not None and stored.isdecimal() and len(stored) < 16 else 0
