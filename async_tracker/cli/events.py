"""``events``: what happened."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from async_tracker.cli.endings import Ending, Misused
from async_tracker.cli.reach import reach
from async_tracker.cli.target import Target
from async_tracker.cli.wording import clock_time, say, say_document, shown
from async_tracker.config import unknown_names
from async_tracker.events.encoding import ANOTHER_VERSION, EVENT_TYPES
from async_tracker.records import Event
from async_tracker.tracker import Tracker

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EVENT_ID = re.compile(r"(\d{1,20})-(\d{1,20})")
_AT_ONCE = 1_000
"""How many events are read at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """Which events were asked for."""

    types: tuple[str, ...]
    """All, where there is none."""
    after: tuple[int, int] | None = None
    start: datetime | None = None

    def is_since(self, event: Event) -> bool:
        """Tell whether an event is late enough."""
        if self.after is not None:
            number, _, part = event.event_id.partition("-")
            return (int(number), int(part)) > self.after
        return self.start is None or event.at >= self.start

    def has(self, event: Event) -> bool:
        """Tell whether it is one of these."""
        return event.type != ANOTHER_VERSION and (not self.types or event.type in self.types) and self.is_since(event)


async def events(target: Target, *, since: str | None, follow: bool, types: tuple[str, ...], limit: int) -> int:
    """Show the newest events, and with ``follow`` those that come. JSON is one document, and one for every line when following."""
    unknown_names(dict.fromkeys(types), EVENT_TYPES, what="event")
    wanted = _wanted(since, types)
    async with reach(target) as tracker:
        found, last = await _newest(tracker, wanted, limit)
        if not follow:
            _print_all(found, target)
            return Ending.OK
        for event in found if since is not None else ():
            _print_one(event, target)
        async for event in tracker.events(last):
            if wanted.has(event):
                _print_one(event, target)
    return Ending.OK


async def _newest(tracker: Tracker, wanted: _Wanted, limit: int) -> tuple[list[Event], str]:
    """Find the newest of those that are wanted, ``limit`` at most, in one part of the stream after the other; and the last event's id."""
    found: list[Event] = []
    part = await tracker.recent_events(_AT_ONCE, unread=True)
    last = part[-1].event_id if part else "0-0"
    while part:
        found[:0] = [event for event in part if wanted.has(event)]
        if len(found) >= limit or not wanted.is_since(part[0]):
            break
        part = await tracker.recent_events(_AT_ONCE, before=part[0].event_id, unread=True)
    return found[-limit:], last


def _wanted(since: str | None, types: tuple[str, ...]) -> _Wanted:
    if since is None:
        return _Wanted(types=types)
    event_id = _EVENT_ID.fullmatch(since)
    if event_id is not None:
        return _Wanted(types=types, after=(int(event_id[1]), int(event_id[2])))
    return _Wanted(types=types, start=moment_of(since, now=datetime.now(UTC)))


def moment_of(text: str, *, now: datetime) -> datetime:
    """Read an age, or a date and time; without a zone it is this host's.

    >>> moment_of("90m", now=datetime(2024, 1, 1, 12, tzinfo=UTC)).isoformat()
    '2024-01-01T10:30:00+00:00'
    >>> moment_of("2024-01-01T10:30:00+00:00", now=datetime.now(UTC)).isoformat()
    '2024-01-01T10:30:00+00:00'
    """
    age = _AGE.fullmatch(text.strip())
    try:
        if age is not None:
            return now - timedelta(**{_UNITS[age[2]]: float(age[1])})
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError):  # of the latter kind is what lies outside of the calendar
        raise Misused(f"--since {shown(text)!r} is no moment: write 10m, 2h, 1d, 2024-05-01T12:00 or the id of an event") from None


def _print_all(found: list[Event], target: Target) -> None:
    if target.as_json:
        say_document({"events": found})
    else:
        for event in found:
            say(event_line(event))


def _print_one(event: Event, target: Target) -> None:
    if target.as_json:
        say_document({"event": event}, indented=False)
    else:
        say(event_line(event))


def event_line(event: Event) -> str:
    """Write one event on one line."""
    named = [("job", event.job_id), ("function", event.function), ("queue", event.queue), ("instance", event.instance_id)]
    facts = [(name, value) for name, value in (*named, *event.details.items()) if value is not None]
    return f"{clock_time(event.at)}  {event.event_id}  {event.type:<14}  " + "  ".join(
        f"{name}={shown(str(value))}" for name, value in facts
    )
