"""The events of one namespace as its stream keeps them: the newest of them, and each that comes."""

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from typing import Any

from async_tracker.clock import from_ms, to_ms
from async_tracker.connections.calls import RAW, call, call_many, raised, translated
from async_tracker.connections.replies import StreamEntry, read_entries, stream_entries
from async_tracker.errors import CorruptRecord
from async_tracker.events.encoding import decode_event, unread_event
from async_tracker.records import Event
from async_tracker.store import keys
from async_tracker.store.run_record import LAST_MOMENT_MS
from async_tracker.store.scripts import EVENTS_SECONDS

_EVENTS_AT_ONCE = 100
_WAIT_MS = 1_000
_BEGINNING = "0-0"
_LAST_SEQUENCE = 2**64 - 1
"""The highest number that an event of one millisecond can have."""


class EventStream:
    """Reads the stream of a namespace; ``redis`` is a Namespace proxy. Events that another version wrote are left out, unless asked for.

    Raises StorageUnavailable when Redis goes away, and StorageError when it refuses.
    """

    def __init__(self, redis: Any) -> None:
        self._redis = redis

    async def newest(self, count: int = 100, *, before: str | None = None, unread: bool = False) -> list[Event]:
        """Give the newest ``count`` events, or of those before the event of this id, the oldest of them first.

        With ``unread`` those that another version wrote are among them, as `unread_event` makes them.
        """
        entries = await self._last(count, until="+" if before is None else _id_before(before))
        return list(_decoded(reversed(entries), unread=unread))

    async def count(self) -> int:
        """Count the events that the stream keeps; those of another version are among them."""
        return int(await call(self._redis, "XLEN", keys.EVENTS))

    async def page(self, since: str | datetime | None, *, limit: int) -> AsyncIterator[Event]:
        """Give at most ``limit`` of the events that the stream keeps, the oldest of those after ``since`` first; None is the beginning.

        A gap is told as by `follow`, and is one of them.
        """
        last = await self._start(since) if since is not None else _BEGINNING
        is_first = True
        while limit > 0:
            asked = min(limit, _EVENTS_AT_ONCE)
            entries = read_entries(await call(self._redis, "XREAD", "COUNT", asked, "STREAMS", keys.EVENTS, last))
            gap = await self._gap(last, entries, are_many=len(entries) == asked, is_first=is_first)
            is_first = False
            for event in (*gap, *_decoded(entries)):
                if limit == 0:
                    return
                limit -= 1
                yield event
            if len(entries) < asked:
                return
            last, _ = entries[-1]

    async def follow(self, since: str | datetime | None = None) -> AsyncIterator[Event]:
        """Give events as they come, for ever; first those after ``since``: the id of an event, or a moment.

        None is what comes from now on. Where events after the last one that was given are gone from the stream, since it keeps only so
        many and only for so long, an event of the type ``gap`` is given in their place; so it is where those after the event ``since``
        are gone.
        """
        last = await self._start(since)
        is_first = since is not None
        wait_ms = _wait_ms(self._redis.redis)
        while True:
            with translated():
                reply = await self._redis.execute_command(
                    "XREAD", "COUNT", _EVENTS_AT_ONCE, "BLOCK", wait_ms, "STREAMS", keys.EVENTS, last, **RAW
                )
            entries = read_entries(reply)
            gap = await self._gap(last, entries, are_many=len(entries) == _EVENTS_AT_ONCE, is_first=is_first)
            for event in (*gap, *_decoded(entries)):
                yield event
            if entries:
                is_first = False
                last, _ = entries[-1]

    async def _start(self, since: str | datetime | None) -> str:
        if isinstance(since, datetime):
            return f"{max(_ms_of(since) - 1, 0)}-{_LAST_SEQUENCE}"  # XREAD gives what is later than an id: of a moment, its own events too
        if since is not None:
            return str(since)
        newest = await self._last(1)
        return newest[0][0] if newest else _BEGINNING

    async def _gap(self, last: str, entries: Sequence[StreamEntry], *, are_many: bool, is_first: bool) -> list[Event]:
        """Give the gap between this event and those that follow it, if there is one.

        A stream loses the oldest of very many, and those that have had their time. So where few follow no command is spent on it, unless
        they are the first that are read: the last one that the caller has seen may be of long ago.
        """
        if not entries or not (are_many or is_first) or not await self._is_cut(last, entries[0][0], are_many=are_many):
            return []
        return [Event(event_id=last, type="gap", at=from_ms(_number(entries[0][0])), details={"before": entries[0][0]})]

    async def _is_cut(self, last: str, following: str, *, are_many: bool) -> bool:
        """Tell whether events between this one, which was there, and the one that now follows it are gone from the stream.

        An event that is there still is the oldest one, or later. Where not many follow, only age takes events out.
        """
        if last == _BEGINNING or last.endswith(f"-{_LAST_SEQUENCE}"):  # no event, but a moment
            return False
        asked = [("TIME",), ("XREAD", "COUNT", 1, "STREAMS", keys.EVENTS, _BEGINNING)]
        now, reply = raised(await call_many(self._redis, asked))
        oldest = read_entries(reply)
        is_gone = bool(oldest) and oldest[0][0] == following
        return is_gone and (are_many or _number(last) < (int(now[0]) - EVENTS_SECONDS) * 1000)

    async def _last(self, count: int, *, until: str = "+") -> list[StreamEntry]:
        return stream_entries(await call(self._redis, "XREVRANGE", keys.EVENTS, until, "-", "COUNT", count))


def _number(event_id: str) -> int:
    return int(event_id.split("-")[0])


def _id_before(event_id: str) -> str:
    """Give the last id that comes before this one.

    >>> _id_before("1700000000000-3"), _id_before("1700000000000-0")
    ('1700000000000-2', '1699999999999-18446744073709551615')
    """
    at_ms, number = map(int, event_id.split("-"))
    return f"{at_ms}-{number - 1}" if number else f"{max(at_ms - 1, 0)}-{_LAST_SEQUENCE}"


def _ms_of(moment: datetime) -> int:
    """Give a moment in ms; one that this host's zone takes out of the calendar is the beginning, or the end, of all events.

    >>> _ms_of(datetime.fromtimestamp(0).astimezone()), _ms_of(datetime.min) <= 0, _ms_of(datetime.max) > 0
    (0, True, True)
    """
    try:
        return to_ms(moment)
    except (ValueError, OverflowError):
        return 0 if moment.year < 1970 else LAST_MOMENT_MS


def _decoded(entries: Iterable[StreamEntry], *, unread: bool = False) -> Iterable[Event]:
    for event_id, fields in entries:
        try:
            event = decode_event(event_id, fields.get("event", ""))
        except CorruptRecord:  # another version's
            if not unread:
                continue
            event = unread_event(event_id, fields.get("event", ""))
        yield event


def _wait_ms(client: Any) -> int:
    """Tell for how long one read may wait: well within the time after which the client takes its connection for dead."""
    socket_timeout = client.connection_pool.connection_kwargs.get("socket_timeout")
    return int(min(_WAIT_MS, socket_timeout * 500)) or 1 if socket_timeout else _WAIT_MS
