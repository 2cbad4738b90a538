"""From what is stored to the numbers of a whole namespace: pure."""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.queries.answers import stats_of
from async_tracker.queries.picture import Picture
from async_tracker.records import Durations, InFlight, Instance, Measures
from async_tracker.store.counters import DEATHS, QUARANTINES, STALLS, Total, TotalsIndex
from async_tracker.store.run_record import glance_at_run


class InFlightCount:
    """Counts runs in flight by function and queue, and orphans."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[str | None, str | None]] = Counter()
        self.orphans = 0

    def counted(self, picture: Picture, instance_ids: Iterable[str]) -> Iterator[tuple[str | None, str | None]]:
        """Give function and queue of each run in flight on these instances; a run of a dead one is counted as an orphan."""
        for instance_id in instance_ids:
            is_live = picture.is_live(instance_id)
            for ref, raw in picture.held.get(instance_id, {}).items():
                run = (glance_at_run(raw) if raw is not None else None) or _read(picture, ref, raw)
                if run is None or run[0] != instance_id:
                    continue
                if is_live:
                    yield run[1:]
                else:
                    self.orphans += 1

    def add(self, runs: Iterable[tuple[str | None, str | None]]) -> None:
        """Count runs."""
        self.runs.update(runs)


def _read(picture: Picture, ref: str, raw: bytes | None) -> tuple[str, str | None, str | None] | None:
    stored = picture.read(ref, raw)
    return (stored["instance"], stored.get("function"), stored.get("queue")) if stored is not None else None


def measures_of(
    picture: Picture, instances: Iterable[Instance], counting: InFlightCount, *, index: TotalsIndex, totals: Iterable[Total]
) -> Measures:
    """Make the numbers of a namespace of what was read of it."""
    counted = sorted(counting.runs.items(), key=lambda entry: _by_name(*entry[0]))
    return Measures(
        taken_at=from_ms(picture.now_ms),
        instances=tuple(instances),
        in_flight=tuple(InFlight(function=function, queue=queue, count=count) for (function, queue), count in counted),
        orphans=counting.orphans,
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
