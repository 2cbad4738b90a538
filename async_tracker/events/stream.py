"""The events of one namespace as its stream keeps them: the newest of them, and each that comes."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any

from async_tracker.clock import to_ms
from async_tracker.connections.calls import RAW, call, translated
from async_tracker.connections.replies import StreamEntry, read_entries, stream_entries
from async_tracker.errors import CorruptRecord
from async_tracker.events.encoding import decode_event
from async_tracker.records import Event
from async_tracker.store import keys
from async_tracker.store.run_record import LAST_MOMENT_MS

_EVENTS_AT_ONCE = 100
_WAIT_MS = 1_000
_LAST_SEQUENCE = 2**64 - 1
"""The highest number that an event of one millisecond can have."""


class EventStream:
    """Reads the stream of a namespace; ``redis`` is a Namespace proxy. Events that another version wrote are left out.

    Raises StorageUnavailable when Redis goes away, and StorageError when it refuses.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def newest(self, count: int = 100) -> list[Event]:
        """Give the newest ``count`` events, the oldest of them first."""
        return list(_decoded(reversed(await self._last(count))))

    async def follow(self, since: str | datetime | None = None) -> AsyncIterator[Event]:
        """Give events as they come, for ever; first those after ``since``: the id of an event, or a moment.

        None is what comes from now on.
        """
        last = await self._start(since)
        wait_ms = _wait_ms(self._redis.redis)
        while True:
            with translated():
                reply = await self._redis.execute_command(
                    "XREAD", "COUNT", _EVENTS_AT_ONCE, "BLOCK", wait_ms, "STREAMS", keys.EVENTS, last, **RAW
                )
            entries = read_entries(reply)
            for event in _decoded(entries):
                yield event
            if entries:
                last, _ = entries[-1]

    async def _start(self, since: str | datetime | None) -> str:
        if isinstance(since, datetime):
            return f"{max(_ms_of(since) - 1, 0)}-{_LAST_SEQUENCE}"  # XREAD gives what is later than an id: of a moment, its own events too
        if since is not None:
            return str(since)
        newest = await self._last(1)
        return newest[0][0] if newest else "0-0"

    async def _last(self, count: int) -> list[StreamEntry]:
        return stream_entries(await call(self._redis, "XREVRANGE", keys.EVENTS, "+", "-", "COUNT", count))


def _ms_of(moment: datetime) -> int:
    """Give a moment in ms; one that this host's zone takes out of the calendar is the beginning, or the end, of all events.

    >>> _ms_of(datetime.fromtimestamp(0).astimezone()), _ms_of(datetime.min) <= 0, _ms_of(datetime.max) > 0
    (0, True, True)
    """
    try:
        return to_ms(moment)
    except (ValueError, OverflowError):
        return 0 if moment.year < 1970 else LAST_MOMENT_MS


def _decoded(entries: Iterable[StreamEntry]) -> Iterable[Event]:
    for event_id, fields in entries:
        try:
            event = decode_event(event_id, fields.get("event", ""))
        except CorruptRecord:
            continue  # another version's
        yield event


def _wait_ms(client: Any) -> int:
    """Tell for how long one read may wait: well within the time after which the client takes its connection for dead."""
    socket_timeout = client.connection_pool.connection_kwargs.get("socket_timeout")
    return int(min(_WAIT_MS, socket_timeout * 500)) or 1 if socket_timeout else _WAIT_MS
