"""What keeps the history while it grows: one sample a minute, and minutes that are over are packed. Done by the instance that sweeps."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice

from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.history.minutes import sample_of, spans_of
from async_tracker.history.packing import Span, entry, pack
from async_tracker.records import QueueDepth
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description
from async_tracker.store.reading import Reading

logger = logging.getLogger("async_tracker")

Depths = Callable[[Sequence[Description]], Awaitable[list[QueueDepth]]]

_OVER_FOR = 1
"""Minutes that a minute must be over before it is packed: a server's clock that is set back by less opens no packed minute again."""

_REFUSED = "Redis refuses to keep the history of this namespace; async-tracker doctor tells which permission is missing: %s"
_RECORDS_AT_ONCE = 100
_DEPTHS_SECONDS = 2.0
_QUEUES_SAMPLED = 50


class HistoryKeeper:
    """Keeps the history of one namespace, with the samples of one library. However many instances do it, it is done once."""

    def __init__(self, *, store: Store, reading: Reading, library: str, depths: Depths | None) -> None:
        """``depths`` tells how full the queues of these instances are; None where the library has no queues that are known."""
        self._store = store
        self._reading = reading
        self._library = library
        self._depths = depths
        self._sampled = 0
        self._has_failed = False
        self._is_refused = False

    async def keep(self, now_ms: int) -> None:
        """Take the sample of this minute of the server and pack the minutes that are over, unless both is done.

        Raises StorageUnavailable. What Redis refuses costs the history, is logged once, and is tried again in the next minute.
        """
        minute = now_ms // 60_000
        if minute == self._sampled:
            return
        try:
            await self._keep(minute)
        except StorageUnavailable:
            raise
        except StorageError as exc:
            if not self._is_refused:
                self._is_refused = True
                logger.warning(_REFUSED, exc)
        else:
            self._is_refused = False
        self._sampled = minute

    async def _keep(self, minute: int) -> None:
        await self._store.sample(minute, self._library, await self._sample())
        for number in await self._reading.open_minutes():
            if number < minute - _OVER_FOR:
                await self._pack(number)

    async def _sample(self) -> str:
        read = await self._reading.instances(await self._reading.instance_ids())
        ours = [stored for stored in read.found.values() if stored.description.library == self._library]
        busy = sum(stored.busy for stored in ours)
        slots = sum(stored.description.concurrency or 0 for stored in ours if stored.state != "draining")
        queues = await self._queues([stored.description for stored in ours])
        return sample_of(busy, slots, queues[:_QUEUES_SAMPLED])

    async def _queues(self, described: Sequence[Description]) -> list[QueueDepth]:
        if self._depths is None:
            return []
        try:
            async with asyncio.timeout(_DEPTHS_SECONDS):
                return await self._depths(described)
        except Exception as exc:  # the edge of a library's adapter, and its Redis may be another one: the sample is worth taking without
            if not self._has_failed:
                self._has_failed = True
                logger.warning("the history has no depths of queues from here: %s", exc or type(exc).__name__)
            return []

    async def _pack(self, minute: int) -> None:
        spans: dict[str, Span] = {}
        seen: set[str] = set()
        async for fields in self._reading.minute_in_parts(minute):
            new = {name: value for name, value in fields.items() if name not in seen}  # a scan may give a field twice
            seen.update(new)
            for pair, span in spans_of(new).items():
                spans.setdefault(pair, Span()).merge(span)
        left = iter(sorted(spans.items()))
        while part := dict(islice(left, _RECORDS_AT_ONCE)):
            await self._store.roll_up(minute, {pair: entry(minute % 60, pack(span)) for pair, span in part.items()})
        await self._store.close_minute(minute)
