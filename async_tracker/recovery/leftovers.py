"""What dead instances left, before anything is recovered: orphans are found, adopted and announced, and what left none is buried.

To adopt an orphan is to keep its record in Redis until it is settled, also when the dead instance did not live to write one.
Nothing of the worker library is changed here, so this serves instances that only watch, and workers without a queue, too.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from async_tracker.connections.calls import is_of_wrong_type
from async_tracker.errors import StorageError
from async_tracker.events.encoding import orphaned_event
from async_tracker.recovery.adapter import Adapter, Claim
from async_tracker.recovery.orphans import Dead, FoundOrphan, Left, sort_out
from async_tracker.store.commands import Store
from async_tracker.store.counters import field_name
from async_tracker.store.instance_record import Description
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Settlement

logger = logging.getLogger("async_tracker")

_ADOPTED_AT_ONCE = 200
"""Orphans that are adopted in one step: well under a millisecond of the server's time."""

_ANNOUNCE_AGAIN_MS = 60_000
"""How often dead instances are searched for new orphans while none are recovered: each search goes through their whole queues."""

_UNREAD = (
    "what dead instance %s left cannot be recovered, what others left is: %s. Another program wrote that key: delete it, "
    "and the next sweep recovers these jobs too (async-tracker doctor names it)"
)
_NOT_RECOVERED = "job %s was left by dead instance %s; this worker does not recover jobs (recover=False, or no queue behind it)"


class Leftovers:
    """What the dead instances of one library left. Each method raises StorageError when Redis refuses or is away.

    ``adapter`` is None where no library stands behind the workers: then orphans are known by our own records only.
    ``recovery_window`` is in seconds. ``on_event`` is called with each event that is announced, as JSON.
    """

    def __init__(
        self,
        *,
        store: Store,
        reading: Reading,
        library: str,
        adapter: Adapter | None,
        recovery_window: float,
        on_event: Callable[[str], None],
    ) -> None:
        self.adapter = adapter
        self._store = store
        self._reading = reading
        self._library = library
        self._window_ms = int(recovery_window * 1000)
        self._on_event = on_event
        self._searched_at_ms: dict[str, int] = {}
        self._unread: set[str] = set()

    async def find(self, instance_ids: Sequence[str], *, now_ms: int, adopt: bool) -> Left:
        """Find what these instances left: by our records, and by the claims that carry their names. ``adopt`` keeps the orphans."""
        claims, unread = await self.claims_of(await self._described(instance_ids)) if self.adapter is not None else ({}, set())
        return await self.sort(instance_ids, claims, unread, now_ms=now_ms, adopt=adopt)

    async def search(self, instance_ids: Sequence[str]) -> "ClaimSearch":
        """Begin to search the queues of these instances for their claims."""
        return ClaimSearch(self, await self._described(instance_ids))

    async def _described(self, instance_ids: Sequence[str]) -> dict[str, Description | None]:
        read = await self._reading.instances(instance_ids)
        return {name: read.found[name].description if name in read.found else None for name in instance_ids}

    async def sort(
        self,
        instance_ids: Sequence[str],
        claims: Mapping[str, Sequence[Claim]],
        unread: set[str],
        *,
        now_ms: int,
        adopt: bool,
        is_whole: bool = True,
    ) -> Left:
        """Give what these instances left, where these are their claims, as far as is found. ``unread``: those whose claims cannot be read.

        While the search goes on it is not ``is_whole``: then what rests on there being no other claim is left out.
        """
        read, listed = await self._reading.instances_and_refs(instance_ids)
        refs = {ref for of_one in listed.values() for ref in of_one} | {claim.ref for of_one in claims.values() for claim in of_one}
        # What was adopted is read after the claims. Another sweeper that is at work here adopts an orphan before it releases it: so an
        # orphan whose claim is gone already is found among the adopted, and is not taken for one of which nothing is known.
        adopted, runs, have_run = await self._reading.adopted_and_runs(instance_ids, sorted(refs))
        dead = [
            Dead(
                instance_id=name,
                instance=read.found.get(name),
                refs=listed.get(name, ()),
                claims=claims.get(name, ()),
                adopted=adopted[name],
                had_run=name in have_run,
            )
            for name in instance_ids
        ]
        left = sort_out(dead, runs, library=self._library, now_ms=now_ms, is_whole=is_whole)
        for name in instance_ids if adopt else ():
            found = [orphan.record for orphan in left.orphans if orphan.stands and orphan.record.instance_id == name]
            try:
                await self._adopt(name, [record for record in found if record.ref not in adopted[name]])
            except StorageError as exc:
                if not is_of_wrong_type(exc):
                    raise
                self.note_unread(name, exc)
                unread.add(name)
        return _without(left, unread) if unread else left

    async def claims_of(self, described: Mapping[str, Description | None]) -> tuple[dict[str, list[Claim]], set[str]]:
        """Give the claims of these instances, and those of which they cannot be read.

        Bad data of one instance costs the claims of that one: where a look at all fails by it, each is looked at alone.
        """
        claims: dict[str, list[Claim]] = {}
        if self.adapter is None:
            return claims, set()
        try:
            async for claim in self.adapter.claims_of(described):
                if claim is not None:
                    claims.setdefault(claim.instance_id, []).append(claim)
        except Exception as exc:  # an adapter may be of any library; what Redis refuses to all is no matter of one instance
            if isinstance(exc, StorageError) and not is_of_wrong_type(exc):
                raise
            if len(described) == 1:
                (name,) = described
                self.note_unread(name, exc)
                return {}, {name}
            claims, unread = {}, set()
            for name, description in described.items():
                of_one, is_unread = await self.claims_of({name: description})
                claims.update(of_one)
                unread |= is_unread
            return claims, unread
        return claims, set()

    def note_unread(self, instance_id: str, exc: Exception) -> None:
        """Log once that bad data keeps a dead instance from being recovered, and what to do: each sweep tries it again."""
        if instance_id not in self._unread:
            self._unread.add(instance_id)
            logger.error(
                _UNREAD, instance_id, exc, exc_info=None if isinstance(exc, StorageError) else exc, extra={"instance_id": instance_id}
            )

    async def bury(self, instance_id: str) -> bool:
        """Forget a dead instance that has no orphan left; False where it has, or where bad data is in the way."""
        try:
            return await self._store.bury(instance_id)
        except StorageError as exc:
            if not is_of_wrong_type(exc):
                raise
            self.note_unread(instance_id, exc)
            return False

    async def _adopt(self, instance_id: str, orphans: Sequence[RunRecord]) -> None:
        for start in range(0, len(orphans), _ADOPTED_AT_ONCE):
            await self._store.adopt(instance_id, orphans[start : start + _ADOPTED_AT_ONCE])

    async def announce(self, died_at_ms: Mapping[str, int], *, now_ms: int) -> None:
        """Adopt the orphans of these dead instances and announce each, once; bury the instances that left nothing.

        An instance with jobs that it had only fetched is not buried either: another process may still give them back.
        Instances whose orphans were not recovered within the window are forgotten, as `forget` says.
        """
        self._searched_at_ms = {name: at_ms for name, at_ms in self._searched_at_ms.items() if name in died_at_ms}
        due = [name for name in died_at_ms if now_ms - self._searched_at_ms.get(name, 0) >= _ANNOUNCE_AGAIN_MS]
        if due:
            left = await self.find(due, now_ms=now_ms, adopt=True)
            for orphan in left.orphans:
                if orphan.stands:
                    await self._announce(orphan)
            holding = {claim.instance_id for claim in left.fetched} | {orphan.record.instance_id for orphan in left.orphans} | left.unread
            for name in due:
                if name in holding or not await self.bury(name):
                    self._searched_at_ms[name] = now_ms
        await self.forget(died_at_ms, now_ms=now_ms)

    async def _announce(self, orphan: FoundOrphan) -> None:
        record = orphan.record
        event = orphaned_event(record, reason=orphan.reason)
        counter = field_name(record.function, record.queue, "orphaned")
        try:
            is_new = await self._store.announce(record, event, counter=counter)
        except StorageError as exc:
            if not is_of_wrong_type(exc):
                raise
            self.note_unread(record.instance_id, exc)
            return
        if is_new:
            facts = {"job_id": record.job_id, "instance_id": record.instance_id}
            logger.warning(_NOT_RECOVERED, *facts.values(), extra=facts)
            self._on_event(event)

    async def forget(self, died_at_ms: Mapping[str, int], *, now_ms: int) -> None:
        """Settle the orphans that were not recovered within the window after the death of their instance, and bury the instance."""
        over = [name for name, at_ms in died_at_ms.items() if now_ms - at_ms > self._window_ms]
        jobs = await self._reading.refs(over)
        for instance_id in over:
            refs = jobs.get(instance_id, [])
            runs = await self._reading.runs(refs)
            for ref in refs:
                record = runs.get(ref)
                if record is None or record.instance_id != instance_id:  # the record there is another run's, and stays
                    record = RunRecord(job_id=ref, instance_id=instance_id, token="-", started_at_ms=now_ms)
                try:
                    await self._store.settle(Settlement(record=record), window_ms=self._window_ms)
                except StorageError as exc:
                    if not is_of_wrong_type(exc):
                        raise
                    self.note_unread(instance_id, exc)
            await self.bury(instance_id)


def _without(left: Left, unread: set[str]) -> Left:
    """Leave alone what these instances left: it is neither recovered nor forgotten."""
    return Left(
        orphans=tuple(orphan for orphan in left.orphans if orphan.record.instance_id not in unread),
        fetched=tuple(claim for claim in left.fetched if claim.instance_id not in unread),
        unread=frozenset(unread),
    )


class ClaimSearch:
    """A search for the claims of some dead instances, in parts: a queue may have a million ids."""

    def __init__(self, leftovers: Leftovers, described: Mapping[str, Description | None]) -> None:
        self._leftovers = leftovers
        self._described = described
        self._going = leftovers.adapter.claims_of(described) if leftovers.adapter is not None else None
        self.claims: dict[str, list[Claim]] = {}
        """What was found so far, by instance."""
        self.unread: set[str] = set()
        self.is_over = False

    @property
    def instance_ids(self) -> list[str]:
        """The instances whose claims are searched for."""
        return list(self._described)

    async def step(self) -> bool:
        """Go through the next part; tells whether claims were found there. Raises StorageError."""
        found = False
        try:
            while self._going is not None:
                claim = await anext(self._going)
                if claim is None:
                    return found
                self.claims.setdefault(claim.instance_id, []).append(claim)
                found = True
        except StopAsyncIteration:
            pass
        except Exception as exc:  # an adapter may be of any library: then each instance is looked at alone, as bad data may be in the way
            if isinstance(exc, StorageError) and not is_of_wrong_type(exc):
                raise
            self.claims, self.unread = await self._leftovers.claims_of(self._described)
        self.is_over = True
        return found
