"""What was, as the page shows it: the steps of a history, how runs have ended, how queues move. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import ceil
from typing import Any

from async_tracker.records import ENDINGS, History, HistoryPoint, QueueDepth, Stats
from async_tracker.web.screens import Row, failures_of, ms

_POINT = ("started", "succeeded", "recovered", "busy", "run_time_p50", "run_time_p95", "queue_wait_p95")


def point_row(item: HistoryPoint) -> list[Any]:
    """Say one step of a history: when it began, how many started, succeeded, failed in either way, were recovered, and the times.

    Then how many instances there were, and orphans at most.

    A step of which nothing is known has its moment alone.
    """
    if item.is_gap:
        return [ms(item.at)]
    started, succeeded, recovered, *rest = (getattr(item, name) for name in _POINT)
    waits = [one.oldest_wait for one in item.queues if one.oldest_wait is not None]
    figures = [*rest, max(waits, default=0.0 if item.queues else None), item.instances]
    orphans = max(item.orphaned, item.orphans or 0)  # those of the sample, and those that came and went between two
    return [ms(item.at), started, succeeded, failures_of(item), recovered, *(rounded(value) for value in figures), orphans]


_LEVELS = "0123456789abcdefghijklmnopqrstuvwxyz"


def drawn(values: Sequence[float | None]) -> str:
    """Write the course of a small line in a letter for each step: a level from 0 to z, the highest value; a dot where none is known.

    Of a young namespace the last quarter or half of the steps is written.

    >>> drawn([None, 0.0, 0.01, 5.0, 10.0]), drawn([None] * 6 + [3.0, 1.0]), drawn([0.0, 0.0]), drawn([])
    ('.01iz', 'zc', '00', '')
    """
    unknown = next((place for place, value in enumerate(values) if value is not None), 0)
    least = next((count for part in (4, 2) if (count := ceil(len(values) / part)) >= len(values) - unknown), len(values))
    values = values[len(values) - least :]
    most = max((value for value in values if value), default=1.0)
    return "".join("." if value is None else _LEVELS[ceil(value / most * (len(_LEVELS) - 1))] for value in values)


def deploy_rows(history: History) -> list[list[Any]]:
    """Say when which version was new in the fleet."""
    return [[ms(item.at), item.version] for item in history.deploys]


def rounded(seconds: float | None) -> float | None:
    """Give a number of seconds, or of jobs, as it is worth showing: a percentile is right within 10 %.

    >>> rounded(0.012345), rounded(123.456), rounded(0.0), rounded(None)
    (0.0123, 123.0, 0.0, None)
    """
    return None if seconds is None else float(f"{seconds:.3g}")


def totals_row(stats: Stats) -> Row:
    """Say how runs have ended, of all functions together."""
    return {"failed": failures_of(stats), "ended": sum(getattr(stats, name) for name in ENDINGS), "recovered": stats.recovered}


_LEAVING = tuple(name for name in ENDINGS if name not in ("retried", "cancelled"))
"""With these a job leaves its queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """How a queue has moved lately."""

    per_minute: float
    """Runs that have ended in a minute."""
    since: datetime
    depth: int
    """How full it was then."""


def flows(stats: Stats, history: History) -> dict[str, Flow]:
    """Tell how each queue has moved, where it was sampled: by its runs that have ended, and by how full it was at first."""
    first: dict[str, tuple[datetime, int]] = {}
    for point in history.points:
        for sample in point.queues:
            first.setdefault(sample.queue, (point.at, sample.depth))
    minutes = (stats.window or 60.0) / 60
    ended: dict[str | None, int] = {}
    for row in stats.functions:
        ended[row.queue] = ended.get(row.queue, 0) + sum(getattr(row, name) for name in _LEAVING)
    return {name: Flow(per_minute=ended.get(name, 0) / minutes, since=at, depth=depth) for name, (at, depth) in first.items()}


def flow_row(item: QueueDepth, flow: Flow | None, *, now_ms: int) -> Row:
    """Say how many jobs a minute a queue has been given, and how many have ended: what came is what went, and what it has grown by."""
    if flow is None:
        return {"in": None, "out": None}
    minutes = max((now_ms / 1000 - flow.since.timestamp()) / 60, 1.0)
    arrived = flow.per_minute + (item.depth - flow.depth) / minutes
    return {"in": rounded(max(arrived, 0.0)), "out": rounded(flow.per_minute)}
