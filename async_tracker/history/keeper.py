"""What keeps the history while it grows: one sample a minute; minutes that are over are packed, and hours are rolled up of them.

Done by the instance that sweeps. It may die at any moment, and there may be several: what is done stands, and is not done twice.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from itertools import islice
from time import monotonic

from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.history.minutes import read_samples, sample_of, sample_of_hour, spans_of
from async_tracker.history.packing import Span, entry, pack, spans_in
from async_tracker.policy import InstanceState
from async_tracker.records import QueueDepth
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description
from async_tracker.store.reading import Reading
from async_tracker.store.scripts import HOURS_SECONDS

logger = logging.getLogger("async_tracker")

Depths = Callable[[Sequence[Description]], Awaitable[list[QueueDepth]]]
Step = Callable[[], Awaitable[None]]

_OVER_FOR = 1
"""Minutes that a minute must be over before it is packed: a server's clock that is set back by less opens no packed minute again."""

_REFUSED = "Redis refuses to keep the history of this namespace; async-tracker doctor tells which permission is missing: %s"
_RECORDS_AT_ONCE = 100
_PAIRS_AT_ONCE = 20
"""Pairs whose hour is read and rolled up at a time: some 60 kB."""
_DEPTHS_SECONDS = 2.0
_QUEUES_SAMPLED = 50
_VERSIONS_SAMPLED = 50
_MINUTES_IN_REACH = 25 * 60
"""For how long minutes are kept after their hour: a day, and the hour that is running."""
_LEAST_SECONDS = 3_600
"""For how long they are kept at least once they are rolled up: a question that is being answered may have found them."""
_SERIES_MINUTES = HOURS_SECONDS // 60
_STRETCH = 0.1
"""Seconds of packing and rolling up between two sweeps."""

_NO_CAPACITY = (InstanceState.DRAINING, InstanceState.QUIET)


class HistoryKeeper:
    """Keeps the history of one namespace, with the samples of one library. However many instances do it, it is done once."""

    def __init__(self, *, store: Store, reading: Reading, library: str, depths: Depths | None) -> None:
        """``depths`` tells how full the queues of these instances are; None where the library has no queues that are known."""
        self._store = store
        self._reading = reading
        self._library = library
        self._depths = depths
        self._sampled = 0
        self._packed = 0
        self._steps: deque[Step] = deque()
        self._has_failed = False
        self._has_refused = False
        """Redis has refused something in this minute."""
        self._is_refusal_known = False
        """The log says so."""

    @property
    def is_behind(self) -> bool:
        """Whether the last call has left something to pack to the next one."""
        return bool(self._steps)

    async def keep(self, now_ms: int) -> None:
        """Take the sample of this minute of the server, then pack and roll up what is over, for a tenth of a second or so.

        What is left is done by the next calls. Raises StorageUnavailable. What Redis refuses costs that part of the history and no
        other, is logged once, and is tried again in the next minute.
        """
        minute = now_ms // 60_000
        try:
            await self._keep(minute)
        except StorageUnavailable:
            self._steps.clear()
            self._packed = 0
            raise

    async def _keep(self, minute: int) -> None:
        if minute != self._sampled:
            self._has_refused = False
            await self._try(partial(self._take_sample, minute))
            self._sampled = minute
        if not self._steps and minute != self._packed:
            await self._try(partial(self._plan, minute))
            self._packed = minute
        until = monotonic() + _STRETCH
        while self._steps:
            await self._try(self._steps[0])
            self._steps.popleft()
            if monotonic() > until:
                break
        self._is_refusal_known = self._is_refusal_known and (bool(self._steps) or self._has_refused)

    async def _try(self, step: Step) -> None:
        """Do one step. Raises StorageUnavailable; a refusal, as of another program's key, must not be in the way of the others."""
        try:
            await step()
        except StorageUnavailable:
            raise
        except StorageError as exc:
            self._has_refused = True
            if not self._is_refusal_known:
                self._is_refusal_known = True
                logger.warning(_REFUSED, exc)

    async def _take_sample(self, minute: int) -> None:
        sample, versions = await self._sample()
        await self._store.sample(minute, self._library, sample, versions)

    async def _sample(self) -> tuple[str, list[str]]:
        """Give the sample, and which versions are in the fleet."""
        registered, dead = await self._reading.names()
        read = await self._reading.instances([*registered, *dead])
        of_library = {name: stored for name, stored in read.found.items() if stored.description.library == self._library}
        gone = [name for name in dead if name in of_library]
        orphans = await self._reading.count_jobs(gone) if gone else 0
        ours = [of_library[name] for name in registered if name in of_library and name not in gone]
        busy = sum(stored.busy for stored in ours)
        slots = sum(stored.description.concurrency or 0 for stored in ours if stored.state not in _NO_CAPACITY)
        queues = await self._queues([stored.description for stored in ours])
        versions = sorted({stored.description.version for stored in ours if stored.description.version is not None})
        sample = sample_of(busy, slots, queues[:_QUEUES_SAMPLED], instances=len(ours), orphans=orphans)
        return sample, versions[:_VERSIONS_SAMPLED]

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

    async def _plan(self, minute: int) -> None:
        """Find out what is to be done in this minute, in steps after each of which it may be left for a while, or for good."""
        minutes, hours = await self._reading.open_spans()
        self._steps.extend(partial(self._pack, number) for number in minutes if number < minute - _OVER_FOR)
        over = [hour for hour in hours if hour * 60 + 59 < minute - _OVER_FOR]
        pairs = await self._reading.series() if over else []
        for hour in over:
            seconds = max((hour * 60 + 60 + _MINUTES_IN_REACH - minute) * 60, _LEAST_SECONDS)
            for start in range(0, len(pairs), _PAIRS_AT_ONCE):
                self._steps.append(partial(self._roll_up, hour, pairs[start : start + _PAIRS_AT_ONCE], seconds))
            self._steps.append(partial(self._close_hour, hour, seconds, minute - _SERIES_MINUTES))

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
            await self._store.pack_minute(minute, {pair: entry(minute % 60, pack(span)) for pair, span in part.items()})
        await self._store.close_minute(minute)

    async def _roll_up(self, hour: int, pairs: Sequence[str], minutes_seconds: int) -> None:
        """Make the records of an hour, each of all its minutes that this version can read, and shorten the life of these."""
        records = {}
        for pair, packed in (await self._reading.packed_hour(hour, pairs)).items():
            total = Span()
            for span in spans_in(packed)[0].values():
                total.merge(span)
            records[pair] = entry(hour % 24, pack(total))
            await asyncio.sleep(0)  # sixty records take a millisecond or two
        if records:
            await self._store.roll_up_hour(hour, records, minutes_seconds=minutes_seconds)

    async def _close_hour(self, hour: int, minutes_seconds: int, series_from: int) -> None:
        samples, _ = read_samples(await self._reading.samples(hour))
        sample = sample_of_hour(list(samples.values()), queues=_QUEUES_SAMPLED)
        await self._store.close_hour(hour, sample, minutes_seconds=minutes_seconds, series_from=series_from)
