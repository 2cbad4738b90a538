"""What is known of the dead before anything is done for them: their orphans found, kept and told of, what left nothing buried.

It changes nothing of the worker library's, so it does for instances that only track, and for workers that no queue stands behind.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

from async_tracker.events.encoding import orphaned_event
from async_tracker.recovery.adapter import Adapter, Claim
from async_tracker.recovery.orphans import Dead, Found, Left, sort_out
from async_tracker.store.commands import Store
from async_tracker.store.counters import field_name
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord
from async_tracker.store.writes import Settlement

logger = logging.getLogger("async_tracker")

_ADOPTED_AT_ONCE = 200
"""Orphans that are kept in one step: well under a millisecond of the server's time."""

_LOOK_AGAIN_MS = 60_000
"""How often the dead are looked at again that nobody recovers: each look goes through their whole queues."""


class Watch:
    """Looks after the orphans of one library's dead instances until somebody recovers them. Raises StorageError when Redis is away.

    ``adapter`` is None where no library stands behind the workers: then only our records know of orphans.
    """

    def __init__(
        self, *, store: Store, library: str, adapter: Adapter | None, recovery_window: float, on_event: Callable[[str], None]
    ) -> None:
        self.library = library
        self.adapter = adapter
        self._store = store
        self._window_ms = int(recovery_window * 1000)
        self._on_event = on_event
        self._looked_at_ms: dict[str, int] = {}

    async def find(self, instance_ids: Sequence[str], *, now_ms: int, adopt: bool) -> Left:
        """Find what these instances left: by our records, and by the claims that carry their names."""
        reading = Reading(self._store.redis)
        instances, listed = await reading.instances(instance_ids), await reading.refs(instance_ids)
        described = {name: instances[name].description if name in instances else None for name in instance_ids}
        claims: dict[str, list[Claim]] = {}
        if self.adapter is not None:
            async for claim in self.adapter.claims_of(described):
                claims.setdefault(claim.instance_id, []).append(claim)
        kept = await reading.adopted(instance_ids)
        dead = [
            Dead(instance_id=name, instance=instances.get(name), refs=listed.get(name, ()), claims=claims.get(name, ()), kept=kept[name])
            for name in instance_ids
        ]
        runs = await reading.runs(sorted({ref for one in dead for ref in (*one.refs, *(claim.ref for claim in one.claims))}))
        left = sort_out(dead, runs, library=self.library, now_ms=now_ms)
        for name in instance_ids if adopt else ():
            found = [orphan.record for orphan in left.orphans if orphan.stands and orphan.record.instance_id == name]
            await self._adopt(name, [record for record in found if record.ref not in kept[name]])
        return left

    async def _adopt(self, instance_id: str, orphans: Sequence[RunRecord]) -> None:
        for start in range(0, len(orphans), _ADOPTED_AT_ONCE):
            await self._store.adopt(instance_id, orphans[start : start + _ADOPTED_AT_ONCE])

    async def look(self, died_at_ms: Mapping[str, int], *, now_ms: int) -> None:
        """Keep what these dead instances left and tell of it, once; bury who left nothing, and who was waited for long enough.

        What was only fetched keeps its instance from being buried as well: somebody may still give it back.
        """
        self._looked_at_ms = {name: at_ms for name, at_ms in self._looked_at_ms.items() if name in died_at_ms}
        due = [name for name in died_at_ms if now_ms - self._looked_at_ms.get(name, 0) >= _LOOK_AGAIN_MS]
        if due:
            left = await self.find(due, now_ms=now_ms, adopt=True)
            for orphan in left.orphans:
                if orphan.stands:
                    await self._tell(orphan, now_ms=now_ms)
            holding = {claim.instance_id for claim in left.fetched} | {orphan.record.instance_id for orphan in left.orphans}
            for name in due:
                if name in holding or not await self._store.bury(name):
                    self._looked_at_ms[name] = now_ms
        await self.forget(died_at_ms, now_ms=now_ms)

    async def _tell(self, orphan: Found, *, now_ms: int) -> None:
        record = orphan.record
        event = orphaned_event(record, reason=orphan.reason)
        counter = field_name(record.function, record.queue, "orphaned")
        if await self._store.tell(record, event, counter=counter, minute=now_ms // 60_000):
            facts = {"job_id": record.job_id, "instance_id": record.instance_id}
            logger.warning("job %s was left by dead instance %s, and is not recovered from here", *facts.values(), extra=facts)
            self._on_event(event)

    async def forget(self, died_at_ms: Mapping[str, int], *, now_ms: int) -> None:
        """Forget those of these dead instances whose orphans nobody has recovered within the window."""
        over = [name for name, at_ms in died_at_ms.items() if now_ms - at_ms > self._window_ms]
        reading = Reading(self._store.redis)
        jobs = await reading.refs(over)
        for instance_id in over:
            refs = jobs.get(instance_id, [])
            runs = await reading.runs(refs)
            for ref in refs:
                record = runs.get(ref)
                if record is None or record.instance_id != instance_id:  # what stands there is another run's, and stays
                    record = RunRecord(job_id=ref, instance_id=instance_id, run="-", started_at_ms=now_ms)
                await self._store.settle(Settlement(record=record), window_ms=self._window_ms, minute=now_ms // 60_000)
            await self._store.bury(instance_id)
