"""``events``: what happened."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from async_tracker.cli.endings import Ending, Misused
from async_tracker.cli.reach import reach
from async_tracker.cli.target import Target
from async_tracker.cli.wording import clock_time, say, say_document, shown
from async_tracker.config import unknown_names
from async_tracker.events.encoding import EVENT_TYPES
from async_tracker.records import Event
from async_tracker.store.scripts import EVENTS_KEPT

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_EVENT_ID = re.compile(r"(\d{1,20})-(\d{1,20})")


async def events(target: Target, *, since: str | None, follow: bool, types: tuple[str, ...], limit: int) -> int:
    """Show the newest events, and with ``follow`` those that come. JSON is one document, and one for every line when following."""
    unknown_names(dict.fromkeys(types), EVENT_TYPES, what="event")
    is_wanted = _filter(since, types)
    async with reach(target) as tracker:
        recent = await tracker.recent_events(2 * EVENTS_KEPT if since is not None or types else limit)
        last = recent[-1].event_id if recent else "0-0"
        found = [event for event in recent if is_wanted(event)][-limit:]
        if not follow:
            _print_all(found, target)
            return Ending.OK
        for event in found if since is not None else ():
            _print_one(event, target)
        async for event in tracker.events(last):
            if is_wanted(event):
                _print_one(event, target)
    return Ending.OK


def _filter(since: str | None, types: tuple[str, ...]) -> Callable[[Event], bool]:
    start: datetime | None = None
    after: tuple[int, int] | None = None
    if since is not None:
        event_id = _EVENT_ID.fullmatch(since)
        after = (int(event_id[1]), int(event_id[2])) if event_id is not None else None
        start = None if event_id is not None else moment_of(since, now=datetime.now(UTC))

    def is_wanted(event: Event) -> bool:
        if types and event.type not in types:
            return False
        if after is not None:
            number, _, part = event.event_id.partition("-")
            return (int(number), int(part)) > after
        return start is None or event.at >= start

    return is_wanted


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
