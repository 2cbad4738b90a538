"""What each screen shows: which rows, filtered and sorted how, and what a row says. Pure: readings in, rows out.

No age is ever in a row, only moments: the browser counts from the server's clock, and a row that does not change is not sent again.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import attrgetter
from typing import Any
from urllib.parse import parse_qsl, urlencode

from async_tracker.policy import STALLED, InstanceState, takes_jobs
from async_tracker.queries.turns import in_turns
from async_tracker.queries.wording import blocking_line
from async_tracker.records import (
    ENDINGS,
    FAILURES,
    Event,
    FunctionStats,
    Instance,
    Job,
    Orphan,
    Quarantined,
    QueueDepth,
)
from async_tracker.web.answers import Problem
from async_tracker.web.readings import server_ms
from async_tracker.web.spans import WINDOWS

SORTED_AT_MOST = 10_000
"""Rows that are put in another order than their own; the answer says where there were more."""
LIMIT, LIMIT_MOST, LIVE_MOST = 50, 1_000, 100
_AT_ONCE = 500
"""Rows that are looked at before others on the loop have a turn: about a millisecond."""

Row = dict[str, Any]
_AGES = re.compile(r",? (?:(?:since|for|until) [\d.]+ s(?: ago)?|[\d.]+ s ago)(?=[ ,;:]|$)")


def ms(moment: datetime | None) -> int | None:
    """Write a moment as a browser counts: milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


def failures_of(item: Any) -> int:
    """Count the runs that have failed, of a function, a step of a history, or all together."""
    return sum(getattr(item, name) for name in FAILURES)


def ageless(reason: str) -> str:
    """Take the ages out of a reason: they change with every look, and a browser counts them itself.

    >>> ageless("its event loop has been blocked for 14.2 s; the process is alive, its watchdog thread reports")
    'its event loop has been blocked; the process is alive, its watchdog thread reports'
    >>> ageless("no heartbeat for 61.0 s, longer than the limit of 60 s"), ageless("its connection to Redis has been closed for 1.0 s")
    ('no heartbeat, longer than the limit of 60 s', 'its connection to Redis has been closed')
    >>> ageless("Redis restarted or failed over 3.0 s ago, and it has not come back yet")
    'Redis restarted or failed over, and it has not come back yet'
    >>> ageless("heartbeat 0.7 s ago")
    ''
    """
    return "" if reason.startswith("heartbeat ") else _AGES.sub("", reason)


def instance_row(item: Instance) -> Row:
    """Say what the table tells of an instance."""
    return {
        "id": item.instance_id,
        "state": str(item.state),
        "label": item.label,
        "tags": list(item.tags),
        "library": item.library,
        "queues": list(item.queues),
        "busy": item.busy,
        "slots": item.concurrency,
        "started": item.jobs_started,
        "ended": item.jobs_ended,
        "failed": item.jobs_failed,
        "memory": None if item.rss_bytes is None else round(item.rss_bytes / 1_048_576, 1),
        "lag": round(item.loop_lag, 3),
        "up": ms(item.started_at),
        "beat": ms(item.heartbeat_at),
        "died": ms(item.died_at),
        "blocked": None if item.blocked_for is None else server_ms(item) - round(item.blocked_for * 1000),
        "line": blocking_line(item.blocked_at) if item.blocked_at else None,
        "dropped": item.dropped,
        "why": ageless(item.reason),
    }


def instance_details(item: Instance) -> Row:
    """Say everything of an instance."""
    return {
        **instance_row(item),
        "host": item.host,
        "pid": item.pid,
        "functions": list(item.functions),
        "version": item.version,
        "versions": dict(item.versions),
        "redis": item.redis,
        "connections": list(item.connection_ids),
        "host_id": item.host_id,
        "stack": list(item.blocked_at),
    }


def job_row(item: Job) -> Row:
    """Say what the table tells of a job in flight."""
    return {
        "id": item.job_id,
        "library": item.library,
        "function": item.function,
        "queue": item.queue,
        "try": item.job_try,
        "enqueued": ms(item.enqueued_at),
        "started": ms(item.started_at),
        "timeout": item.timeout,
        "progress": item.progress,
        "message": item.progress_message,
        "instance": item.instance_id,
        "state": str(item.instance_state),
        "superseded": item.superseded,
    }


def deadline(item: Job) -> float | None:
    """Tell when the timeout of a job is over, in seconds since 1970; None where it has none."""
    return None if item.timeout is None else item.started_at.timestamp() + item.timeout


def job_details(item: Job) -> Row:
    """Say everything of a job in flight."""
    return {**job_row(item), "run": item.run, "args": item.args}


def orphan_row(item: Orphan) -> Row:
    """Say what the table tells of an orphan."""
    return {
        "id": item.job_id,
        "library": item.library,
        "function": item.function,
        "queue": item.queue,
        "try": item.job_try,
        "instance": item.instance_id,
        "orphaned": ms(item.orphaned_at),
        "started": ms(item.started_at),
        "deaths": item.deaths,
        "why": ageless(item.reason),
    }


def quarantined_row(item: Quarantined) -> Row:
    """Say what the table tells of a poison pill."""
    return {
        "id": item.job_id,
        "library": item.library,
        "function": item.function,
        "queue": item.queue,
        "deaths": item.deaths,
        "why": ageless(item.reason),
        "at": ms(item.quarantined_at),
        "bytes": item.payload_bytes,
        "instance": item.instance_id,
    }


_PERCENTILES = tuple(f"{what}_{which}" for what in ("run_time", "queue_wait") for which in ("p50", "p95", "p99", "max"))


_SORTED_TIMES = ("run_time_p50", "run_time_p95", "run_time_max", "queue_wait_p50", "queue_wait_p95")


def function_row(item: FunctionStats, per_minute: Mapping[Any, float]) -> Row:
    """Say what the table tells of a function; a mean is over the runs that have ended."""
    ended = sum(getattr(item, name) for name in ENDINGS)
    return {
        "function": item.function,
        "queue": item.queue,
        "rate": per_minute.get((item.function, item.queue)) if item.per_minute is None else round(item.per_minute, 1),
        "started": item.started,
        **{name: getattr(item, name) for name in ENDINGS},
        "orphaned": item.orphaned,
        "recovered": item.recovered,
        "failed_share": round(failures_of(item) / ended, 5) if ended else None,
        "run": round(item.run_time / ended, 4) if ended else None,
        **{name: value for name in _PERCENTILES if (value := getattr(item, name)) is not None},
    }


def working_on(instances: Iterable[Instance]) -> dict[tuple[str, str], list[Instance]]:
    """Give the instances that take jobs, by each library and queue that they work on."""
    found: dict[tuple[str, str], list[Instance]] = {}
    for one in instances:
        if takes_jobs(one.state):
            for queue in one.queues:
                found.setdefault((one.library, queue), []).append(one)
    return found


def queue_row(item: QueueDepth, working: Sequence[Instance], *, now_ms: int) -> Row:
    """Say what the table tells of a queue, with those who work on it."""
    return {
        "queue": item.queue,
        "library": item.library,
        "depth": item.depth,
        "due": item.due,
        "oldest": None if item.oldest_wait is None else round((now_ms - item.oldest_wait * 1000) / 100) * 100,
        "workers": len(working),
        "alive": sum(one.state == InstanceState.ALIVE for one in working),
        "busy": sum(one.busy for one in working),
        "slots": sum(one.concurrency or 0 for one in working),
        "unserved": bool(item.due) and not working,
    }


def event_row(item: Event) -> Row:
    """Say what the table tells of an event."""
    details = {name: ageless(value) if name == "reason" and isinstance(value, str) else value for name, value in item.details.items()}
    return {
        "id": item.event_id,
        "type": item.type,
        "at": ms(item.at),
        "job": item.job_id,
        "instance": item.instance_id,
        "function": item.function,
        "queue": item.queue,
        "details": details,
    }


def finding_row(item: Any) -> Row:
    """Say one finding of the examination."""
    return {"subject": item.subject, "status": str(item.status), "says": item.says, "remedy": item.remedy}


Test = Callable[[Any], bool]


def _is(name: str) -> Callable[[str], Test]:
    return lambda wanted: lambda item: (getattr(item, name) or "") == wanted


def _has_queue(wanted: str) -> Test:
    return lambda item: wanted in item.queues


def _has_state(wanted: str) -> Test:
    states = {"stalled": STALLED}.get(wanted, (wanted,))
    return lambda item: item.state in states


def _is_one_of(name: str) -> Callable[[str], Test]:
    def make(wanted: str) -> Test:
        names = frozenset(wanted.split(","))
        return lambda item: getattr(item, name) in names

    return make


def _older(wanted: str) -> Test:
    seconds = number(wanted, "older")
    return lambda item: item.running_for >= seconds


def _overdue(wanted: str) -> Test:
    if wanted not in ("1", "0"):
        raise Problem(400, "bad_request", f"overdue={wanted}: write 1 or 0")
    return lambda item: (item.timeout is not None and item.running_for > item.timeout) == (wanted == "1")


def _since(wanted: str) -> Test:
    try:
        at = float(wanted) / 1000 if re.fullmatch(r"\d{1,15}", wanted) else datetime.fromisoformat(wanted).astimezone().timestamp()
    except (ValueError, OverflowError):
        raise Problem(400, "bad_request", f"since={wanted}: write 2024-05-01T12:00:00+00:00, or milliseconds") from None
    return lambda item: item.at.timestamp() >= at


def number(wanted: str, name: str) -> float:
    """Read a number of a query. Raises Problem."""
    if not re.fullmatch(r"\d{1,12}(\.\d{1,6})?", wanted):
        raise Problem(400, "bad_request", f"{name}={wanted}: write a number")
    return float(wanted)


def _holds(*names: str) -> Callable[[str], Test]:
    """Make the test of the text filter: some of these fields holds the text, in whatever case."""

    def make(wanted: str) -> Test:
        needle = wanted.casefold()
        fields = attrgetter(*names) if len(names) > 1 else lambda item: (getattr(item, names[0]),)

        def test(item: Any) -> bool:
            texts: list[str] = []
            for value in fields(item):
                if isinstance(value, str):
                    texts.append(value)
                elif value:
                    texts += value
            return needle in "\0".join(texts).casefold()

        return test

    return make


def _by(name: str) -> Callable[[Any], Any]:
    """Make a key to sort by; None is what is not known, which comes last."""
    return attrgetter(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """One screen that is a table: where its rows come from, and by what they are chosen and ordered."""

    reading: str
    rows_of: Callable[[Any], Sequence[Any]]
    row: Callable[[Any], Row]
    filters: Mapping[str, Callable[[str], Test]] = field(default_factory=dict)
    sorts: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    sorted_by: str = ""
    """The order in which the reading gives the rows, which costs nothing; with a minus where it is descending."""
    facets: tuple[str, ...] = ()
    """Filters whose values are counted over all rows."""
    has_windows: bool = False
    """Whether it can be asked of a window of time."""


_EVERY = ("function", "queue", "library")

SCREENS: Mapping[str, Screen] = {
    "instances": Screen(
        reading="instances",
        rows_of=lambda value: value.instances,
        row=instance_row,
        filters={
            "state": _has_state,
            "library": _is("library"),
            "queue": _has_queue,
            "q": _holds("instance_id", "label", "host", "tags", "queues", "functions", "library"),
        },
        sorts={
            "up": _by("started_at"),
            "instance": _by("instance_id"),
            "state": _by("state"),
            "library": _by("library"),
            "busy": _by("busy"),
            "ended": _by("jobs_ended"),
            "failed": _by("jobs_failed"),
            "memory": _by("rss_bytes"),
            "lag": _by("loop_lag"),
            "beat": _by("heartbeat_at"),
        },
        sorted_by="up",
        facets=("state",),
    ),
    "jobs": Screen(
        reading="snapshot",
        rows_of=lambda value: value.jobs,
        row=job_row,
        filters={
            **{name: _is(name) for name in _EVERY},
            "instance": _is("instance_id"),
            "older": _older,
            "overdue": _overdue,
            "q": _holds("job_id", "function", "queue", "instance_id", "progress_message", "args"),
        },
        sorts={
            "started": _by("started_at"),
            "id": _by("job_id"),
            "function": _by("function"),
            "queue": _by("queue"),
            "try": _by("job_try"),
            "enqueued": _by("enqueued_at"),
            "timeout": _by("timeout"),
            "deadline": deadline,
            "progress": _by("progress"),
            "instance": _by("instance_id"),
        },
        sorted_by="started",
    ),
    "orphans": Screen(
        reading="orphans",
        rows_of=lambda value: value.orphans,
        row=orphan_row,
        filters={
            **{name: _is(name) for name in _EVERY},
            "instance": _is("instance_id"),
            "q": _holds("job_id", "function", "queue", "instance_id"),
        },
        sorts={
            "started": _by("started_at"),
            "id": _by("job_id"),
            "function": _by("function"),
            "queue": _by("queue"),
            "try": _by("job_try"),
            "orphaned": _by("orphaned_at"),
            "deaths": _by("deaths"),
            "instance": _by("instance_id"),
        },
        sorted_by="started",
    ),
    "quarantine": Screen(
        reading="quarantined",
        rows_of=lambda value: value,
        row=quarantined_row,
        filters={**{name: _is(name) for name in _EVERY}, "q": _holds("job_id", "function", "queue", "instance_id", "reason")},
        sorts={
            "at": _by("quarantined_at"),
            "id": _by("job_id"),
            "function": _by("function"),
            "queue": _by("queue"),
            "deaths": _by("deaths"),
            "bytes": _by("payload_bytes"),
        },
        sorted_by="at",
    ),
    "functions": Screen(
        reading="stats",
        rows_of=lambda value: value.functions,
        row=lambda item: function_row(item, {}),
        filters={"queue": _is("queue"), "q": _holds("function", "queue")},
        sorts={
            "function": _by("function"),
            "queue": _by("queue"),
            "started": _by("started"),
            "succeeded": _by("succeeded"),
            "failed": _by("failed"),
            "retried": _by("retried"),
            "recovered": _by("recovered"),
            "rate": _by("per_minute"),
            **{name: _by(name) for name in _SORTED_TIMES},
        },
        sorted_by="function",
        has_windows=True,
    ),
    "queues": Screen(
        reading="queues",
        rows_of=lambda value: value,
        row=lambda item: queue_row(item, (), now_ms=0),
        filters={"library": _is("library"), "q": _holds("queue")},
        sorts={"library": _by("library"), "queue": _by("queue"), "depth": _by("depth"), "due": _by("due"), "oldest": _by("oldest_wait")},
        sorted_by="library",
    ),
    "events": Screen(
        reading="events",
        rows_of=lambda value: value,
        row=event_row,
        filters={
            "type": _is_one_of("type"),
            "since": _since,
            "job": _is("job_id"),
            "instance": _is("instance_id"),
            "q": _holds("job_id", "instance_id", "function", "queue", "type"),
        },
        sorts={"at": _by("at")},
        sorted_by="-at",
        facets=("type",),
    ),
    "doctor": Screen(reading="doctor", rows_of=lambda value: value, row=finding_row),
}

ONE = ("instance", "job", "function")
"""Screens that are about one thing, named by ``id``; a function by ``function`` and ``queue``."""
_NAMED_BY = {"instance": ("id",), "job": ("id",), "function": ("function", "queue")}
_WINDOWED = ("function", *(name for name, screen in SCREENS.items() if screen.has_windows))
LIVE = ("overview", *SCREENS, *ONE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a viewer looks at: a screen, its filters, its order and its page. The same for all who look at the same."""

    screen: str
    filters: tuple[tuple[str, str], ...] = ()
    window: str = ""
    """One of `WINDOWS`; empty for all of time."""
    sort: str = ""
    offset: int = 0
    limit: int = LIMIT

    @property
    def query(self) -> str:
        """Write it as a query string; equal for equal wishes."""
        pairs = [*self.filters, ("window", self.window), ("sort", self.sort), ("cursor", str(self.offset)), ("limit", str(self.limit))]
        return urlencode(pairs, errors="surrogatepass")


def wanted(screen: str, query: Sequence[tuple[str, str]], *, limit_most: int = LIMIT_MOST) -> Wanted:
    """Read what a query string asks of a screen. Raises Problem, which says what could have been asked.

    >>> wanted("jobs", [("function", "mail"), ("sort", "-try"), ("cursor", "50")])
    Wanted(screen='jobs', filters=(('function', 'mail'),), window='', sort='-try', offset=50, limit=50)
    """
    if screen in ONE:
        known: Mapping[str, Any] = dict.fromkeys(_NAMED_BY[screen])
        sorts: Mapping[str, Any] = {}
    elif screen == "overview":
        known, sorts = {}, {}
    elif screen in SCREENS:
        known, sorts = SCREENS[screen].filters, SCREENS[screen].sorts
    else:
        raise Problem(400, "bad_request", f"there is no screen {screen!r}: write one of {', '.join(LIVE)}")
    filters: dict[str, str] = {}
    window = "1h" if screen == "function" else ""
    sort, offset, limit = SCREENS[screen].sorted_by if screen in SCREENS else "", 0, min(LIMIT, limit_most)
    for name, value in query:
        if name == "sort" and sorts:
            if value.removeprefix("-") not in sorts:
                raise Problem(400, "bad_request", f"sort={value}: write one of {', '.join(sorts)}, with a minus before it to descend")
            sort = value
        elif name == "window" and screen in _WINDOWED:
            if value and value not in WINDOWS:
                raise Problem(400, "bad_request", f"window={value}: write one of {', '.join(WINDOWS)}")
            window = value or window
        elif name == "cursor" and screen in SCREENS:
            offset = _whole(name, value, 0, 10_000_000)
        elif name == "limit" and screen in SCREENS:
            limit = _whole(name, value, 1, limit_most)
        elif name in known:
            if value:
                filters[name] = value
        else:
            allowed = [
                *known,
                *(("window",) if screen in _WINDOWED else ()),
                *(("sort",) if sorts else ()),
                *(("cursor", "limit") if screen in SCREENS else ()),
            ]
            raise Problem(400, "bad_request", f"{screen} knows no {name!r}: it takes {', '.join(allowed) or 'nothing'}")
    if screen in ONE and _NAMED_BY[screen][0] not in filters:
        raise Problem(400, "bad_request", f"{screen} needs {_NAMED_BY[screen][0]}")
    found = Wanted(screen=screen, filters=tuple(sorted(filters.items())), window=window, sort=sort, offset=offset, limit=limit)
    tests_of(found)
    return found


def reading_of(asked: Wanted) -> tuple[str, ...]:
    """Name the reading that a table is made of, as `Readings.get` takes it."""
    return ("window", asked.window) if asked.window else (SCREENS[asked.screen].reading,)


def topic(text: str) -> Wanted:
    """Read a topic of the live stream: a screen, and behind a question mark what is asked of it."""
    screen, _, query = text.partition("?")
    return wanted(screen, parse_qsl(query, keep_blank_values=True, errors="surrogateescape"), limit_most=LIVE_MOST)


def _whole(name: str, value: str, least: int, most: int) -> int:
    if not re.fullmatch(r"[0-9]{1,8}", value) or not least <= int(value) <= most:
        raise Problem(400, "bad_request", f"{name}={value}: write a whole number from {least} to {most}")
    return int(value)


def tests_of(asked: Wanted) -> list[Test]:
    """Make the tests that a row must pass. Raises Problem for a value that cannot be one."""
    if asked.screen not in SCREENS:
        return []
    return [SCREENS[asked.screen].filters[name](value) for name, value in asked.filters]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """The rows that were asked for. ``total`` counts those that pass the filters, ``every`` all; counts are exact."""

    items: Sequence[Any]
    total: int
    every: int
    facets: Mapping[str, Mapping[str, int]]
    is_cut: bool = False
    """There were more than can be put in this order: only the first ``SORTED_AT_MOST`` of the screen's own order were."""


async def page(asked: Wanted, value: Any) -> Page:
    """Choose the rows of one page; others on the loop have a turn after every so many rows."""
    screen = SCREENS[asked.screen]
    every = screen.rows_of(value)
    found = await matching(asked, every)
    total, is_cut = len(found), False
    if asked.sort != screen.sorted_by:
        name = asked.sort.removeprefix("-")
        if name == screen.sorted_by.removeprefix("-"):
            found = list(reversed(found))
        else:
            is_cut = total > SORTED_AT_MOST
            found = await _sorted(found[:SORTED_AT_MOST], screen.sorts[name], descending=asked.sort.startswith("-"))
    return Page(
        items=found[asked.offset : asked.offset + asked.limit],
        total=total,
        every=len(every),
        facets={name: await _counted(every, name) for name in screen.facets},
        is_cut=is_cut,
    )


async def matching(asked: Wanted, rows: Sequence[Any]) -> Sequence[Any]:
    """Give the rows that pass the filters."""
    tests = tests_of(asked)
    if not tests:
        return rows
    return [item async for part in in_turns(rows, _AT_ONCE) for item in part if all(test(item) for test in tests)]


async def _sorted(items: Sequence[Any], key: Callable[[Any], Any], *, descending: bool) -> list[Any]:
    """Sort, what is not known last; others have turns while the keys are made, which takes longer than sorting plain ones."""
    keys = [key(item) async for part in in_turns(items, _AT_ONCE) for item in part]
    known = sorted((place for place, value in enumerate(keys) if value is not None), key=keys.__getitem__, reverse=descending)
    return [items[place] for place in known] + [item for item, value in zip(items, keys, strict=True) if value is None]


async def _counted(items: Sequence[Any], name: str) -> dict[str, int]:
    """Count the values of a field; others have turns meanwhile."""
    counts: dict[str, int] = {}
    async for part in in_turns(items, _AT_ONCE):
        for value, count in counted(str(getattr(item, name)) for item in part).items():
            counts[value] = counts.get(value, 0) + count
    return dict(sorted(counts.items()))


def counted(values: Iterable[str]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return dict(sorted(counts.items()))
