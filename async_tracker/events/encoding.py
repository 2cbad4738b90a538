"""What happened: the events, their names, and how one is written into the stream."""

import json
import re
from collections.abc import Mapping
from typing import Any

from async_tracker.clock import from_ms
from async_tracker.errors import CorruptRecord
from async_tracker.records import EVENT_SCHEMA, Event
from async_tracker.store.run_record import LAST_MOMENT_MS, RunRecord

EVENT_TYPES = (
    "orphaned",
    "recovered",
    "quarantined",
    "stalled",
    "instance_dead",
    "ownership_lost",
    "unquarantined",
    "tries_count",
    "action",
    "control",
    "deployed",
    "gap",
)
"""``on()`` and the stream know these. ``recovered`` covers a delayed recovery: its delay is in the details. ``gap`` is told
only to those who follow the stream: events that they have not seen are gone from it."""

ANOTHER_VERSION = "another_version"
"""The type under which an event that this version cannot read is told of, where that is asked for; none is written."""

EVENT_ID = re.compile(r"\d{1,20}(-\d{1,20})?")
"""What the id of an event looks like: ms of the server's clock, and a number among those of one ms."""

_NAMED = ("instance_id", "job_id", "function", "queue")


def encode_event(event_type: str, **facts: Any) -> str:
    """Write one event as JSON; facts that are None are left out.

    >>> encode_event("recovered", job_id="42", delay=0.0)
    '{"schema":1,"type":"recovered","job_id":"42","delay":0.0}'
    """
    kept = {name: value for name, value in facts.items() if value is not None}
    return json.dumps({"schema": EVENT_SCHEMA, "type": event_type, **kept}, separators=(",", ":"))


def decode_event(event_id: str, raw: bytes | str) -> Event:
    """Read one event of the stream. Raises CorruptRecord for another schema."""
    try:
        stored: Mapping[str, Any] = json.loads(raw)
        if stored["schema"] != EVENT_SCHEMA:
            raise CorruptRecord(f"events {event_id}", f"schema {stored['schema']}, this version reads {EVENT_SCHEMA}")
        return Event(
            event_id=event_id,
            type=str(stored["type"]),
            at=from_ms(int(event_id.split("-")[0])),
            instance_id=stored.get("instance_id"),
            job_id=stored.get("job_id"),
            function=stored.get("function"),
            queue=stored.get("queue"),
            details={name: value for name, value in stored.items() if name not in {*_NAMED, "schema", "type"}},
        )
    except (ValueError, KeyError, TypeError, OverflowError, OSError, RecursionError) as exc:
        raise CorruptRecord(f"events {event_id}", f"not an event: {exc}") from exc


def unread_event(event_id: str, raw: bytes | str) -> Event:
    """Tell of an event that this version cannot read: when it was, of which schema it is, and which job and instance it is about.

    >>> unread_event("1700000000000-0", '{"schema":2,"type":"moved","job_id":"42"}').details
    {'schema': 2, 'type': 'moved'}
    >>> unread_event("1700000000000-0", "rubbish").details
    {}
    """
    try:
        stored = json.loads(raw)
    except (ValueError, RecursionError):
        stored = None
    stored = stored if isinstance(stored, dict) else {}
    texts = {name: stored[name] for name in _NAMED if isinstance(stored.get(name), str)}
    details = {name: stored[name] for name in ("schema", "type") if isinstance(stored.get(name), str | int)}
    at = from_ms(min(int(event_id.split("-")[0]), LAST_MOMENT_MS))
    schema = stored.get("schema")
    facts: dict[str, Any] = {**texts, **({"schema": schema} if isinstance(schema, int) else {})}
    return Event(event_id=event_id, type=ANOTHER_VERSION, at=at, details=details, **facts)


def facts_of(record: RunRecord) -> dict[str, Any]:
    """Give what every event of a job says of it."""
    return {
        "job_id": record.job_id,
        "instance_id": record.instance_id,
        "function": record.function,
        "queue": record.queue,
        "library": record.library,
    }


def orphaned_event(record: RunRecord, *, reason: str) -> str:
    """Write that a dead instance has left this run."""
    return encode_event("orphaned", **facts_of(record), reason=reason, job_try=record.job_try)


def tries_count_event(record: RunRecord) -> str:
    """Write that the try of this run counts, as the worker library counts it: too many tries of its job were kept before."""
    return encode_event("tries_count", **facts_of(record), job_try=record.job_try, max_tries=record.max_tries, kept=record.keep_tries)
