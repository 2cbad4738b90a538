"""What is done with the orphans of dead instances: found, released through their library's adapter, settled, buried.

Every step may be the last of a process that dies here: the next sweep finds the instance among the dead and carries on, and
nothing is done or counted twice.
"""

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from async_tracker.adapter import Adapter, Claim, QuarantinedPayload, Released
from async_tracker.calls import text
from async_tracker.counts import field_name
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.events import encode_event
from async_tracker.orphans import Dead, Found, Left, sort_out
from async_tracker.policy import apart, is_poison, recovery_delay
from async_tracker.records import Recovery, RecoveryAction
from async_tracker.store import Settlement, Store
from async_tracker.store.reading import Reading
from async_tracker.stored import RunRecord

logger = logging.getLogger("async_tracker")

_ACTIONS = {
    Released.RELEASED: RecoveryAction.RECOVERED,
    Released.QUARANTINED: RecoveryAction.QUARANTINED,
    Released.ENDED: RecoveryAction.ENDED,
    Released.TAKEN: RecoveryAction.TAKEN,
    Released.NOTHING: RecoveryAction.LEFT,
}


_ADOPTED_AT_ONCE = 200
"""Orphans that are kept in one step: well under a millisecond of the server's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often a job may die with its worker."""

    max_recoveries: int
    recovery_window: float


@dataclass(frozen=True, slots=True)
class _Death:
    """An orphan, and how often its job has died with its worker, this time included."""

    orphan: Found
    times: int


class Recoverer:
    """Recovers the orphans of instances that were declared dead. Raises StorageError when Redis is away."""

    def __init__(self, *, store: Store, adapter: Adapter, policy: Policy, on_event: Callable[[str], None]) -> None:
        self._store = store
        self.adapter = adapter
        self._policy = policy
        self._on_event = on_event
        self._refused: set[str] = set()
        self.left_undone = False
        """Redis did not let the last recovery do all of its work."""

    async def recover(self, instance_ids: Sequence[str], *, now_ms: int, dry_run: bool = False) -> list[Recovery]:
        """Recover what these dead instances left, the oldest first, and bury those that have nothing left."""
        self.left_undone = False
        left = await self.find(instance_ids, now_ms=now_ms, adopt=not dry_run)
        since_ms = now_ms - int(self._policy.recovery_window * 1000)
        deaths = await Reading(self._store.redis).deaths(sorted({orphan.record.ref for orphan in left.orphans}), since_ms=since_ms)
        died_together: dict[str, list[_Death]] = {}
        for orphan in left.orphans:
            died = _Death(orphan, _deaths_of(orphan, deaths[orphan.record.ref]))
            died_together.setdefault(orphan.record.instance_id, []).append(died)
        done = []
        for orphan in left.orphans:
            plan = self._plan(orphan, died_together[orphan.record.instance_id], dry_run=dry_run)
            result = plan if dry_run else await self._try_carry_out(orphan, plan, now_ms=now_ms)
            if result is not None:
                done.append(result)
        if not dry_run:
            await self._give_back(left.fetched)
            for instance_id in instance_ids:
                await self._store.bury(instance_id)
        return done

    async def find(self, instance_ids: Sequence[str], *, now_ms: int, adopt: bool) -> Left:
        """Find what these instances left: by our records, and by the claims that carry their names."""
        reading = Reading(self._store.redis)
        instances, listed = await reading.instances(instance_ids), await reading.refs(instance_ids)
        described = {name: instances[name].description if name in instances else None for name in instance_ids}
        claims: dict[str, list[Claim]] = {}
        async for claim in self.adapter.claims_of(described):
            claims.setdefault(claim.instance_id, []).append(claim)
        kept = await reading.adopted(instance_ids)
        dead = [
            Dead(instance_id=name, instance=instances.get(name), refs=listed.get(name, ()), claims=claims.get(name, ()), kept=kept[name])
            for name in instance_ids
        ]
        runs = await reading.runs(sorted({ref for one in dead for ref in (*one.refs, *(claim.ref for claim in one.claims))}))
        left = sort_out(dead, runs, library=self.adapter.library, now_ms=now_ms)
        for name in instance_ids if adopt else ():
            found = [orphan.record for orphan in left.orphans if orphan.stands and orphan.record.instance_id == name]
            await self._adopt(name, [record for record in found if record.ref not in kept[name]])
        return left

    async def _adopt(self, instance_id: str, orphans: Sequence[RunRecord]) -> None:
        for start in range(0, len(orphans), _ADOPTED_AT_ONCE):
            await self._store.adopt(instance_id, orphans[start : start + _ADOPTED_AT_ONCE])

    async def _give_back(self, fetched: Sequence[Claim]) -> None:
        if fetched:
            await self.adapter.give_back(fetched)
            names = sorted({claim.instance_id for claim in fetched})
            logger.info("%d jobs that dead instances had only fetched were given back", len(fetched), extra={"instance_ids": names})

    def _plan(self, orphan: Found, company: Sequence[_Death], *, dry_run: bool) -> Recovery:
        """Decide what is to be done with an orphan; ``company`` are all that died with it, itself included."""
        record = orphan.record
        position, deaths = next((number, died.times) for number, died in enumerate(company) if died.orphan is orphan)
        suspects = sum(died.orphan.counts and died.orphan.stands and died.times >= deaths for died in company)
        if not orphan.stands:
            action, delay = RecoveryAction.TAKEN, 0.0
        elif orphan.counts and is_poison(deaths, max_recoveries=self._policy.max_recoveries, suspects=suspects):
            action, delay = RecoveryAction.QUARANTINED, 0.0
        else:
            delay = recovery_delay(deaths, jitter=apart(position, len(company), jitter=random.random()))
            action = RecoveryAction.DELAYED if delay else RecoveryAction.RECOVERED
        return Recovery(
            job_id=record.job_id,
            instance_id=record.instance_id,
            action=action,
            function=record.function,
            queue=record.queue,
            library=record.library,
            job_try=record.job_try,
            delay=delay,
            deaths=deaths,
            reason=orphan.reason,
            dry_run=dry_run,
        )

    async def _try_carry_out(self, orphan: Found, plan: Recovery, *, now_ms: int) -> Recovery | None:
        """Leave an orphan that Redis refuses to recover for the next sweep: it must not keep the others from being recovered."""
        try:
            return await self._carry_out(orphan, plan, now_ms=now_ms)
        except StorageUnavailable:
            raise
        except StorageError as exc:
            self.left_undone = True
            if orphan.record.token not in self._refused:
                self._refused.add(orphan.record.token)
                logger.error("job %s of dead instance %s cannot be recovered: %s", plan.job_id, plan.instance_id, exc)
            return None

    async def _carry_out(self, orphan: Found, plan: Recovery, *, now_ms: int) -> Recovery:
        kept: QuarantinedPayload | None = None
        result = plan
        if plan.action is RecoveryAction.QUARANTINED:
            kept = await self.adapter.quarantine(orphan.record, error=quarantine_error(plan))
        if kept is None and plan.action is not RecoveryAction.TAKEN:  # an earlier sweep may have released what this one would quarantine
            released = await self.adapter.release(orphan.record, delay=plan.delay)
            if released is not Released.RELEASED or plan.action is RecoveryAction.QUARANTINED:
                result = _replaced(plan, _ACTIONS[released])
            if released is Released.QUARANTINED:
                kept = await self.adapter.quarantine(orphan.record, error=quarantine_error(plan))
        await self._settle(orphan, result, kept, now_ms=now_ms)
        return result

    async def _settle(self, orphan: Found, result: Recovery, kept: QuarantinedPayload | None, *, now_ms: int) -> None:
        acted = result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED, RecoveryAction.QUARANTINED)
        counters = ["orphaned"] if acted else []
        if result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED):
            counters.append("recovered")
        settlement = Settlement(
            record=orphan.record,
            counts=acted and orphan.counts,
            events=_events(result) if acted or result.action is RecoveryAction.LEFT else (),
            counters=tuple(field_name(result.function, result.queue, counter) for counter in counters),
            quarantined=_quarantined_fields(result, kept) if kept is not None else None,
        )
        window_ms = int(self._policy.recovery_window * 1000)
        if await self._store.settle(settlement, window_ms=window_ms, minute=now_ms // 60_000):
            facts = {"job_id": result.job_id, "instance_id": result.instance_id, "action": str(result.action), "delay": result.delay}
            logger.warning("job %s was left by dead instance %s: %s", result.job_id, result.instance_id, result.action, extra=facts)
            for event in settlement.events:
                self._on_event(event)


def _deaths_of(orphan: Found, runs: Sequence[str]) -> int:
    """Count under how many runs of a job a worker has died, the present one included once, where it counts."""
    before = [run for run in runs if run != orphan.record.run]
    return len(before) + (1 if orphan.counts else 0)


def quarantine_error(plan: Recovery) -> str:
    """Say to whoever awaits the job why it will not come."""
    return f"job {plan.job_id} was quarantined: {plan.deaths} workers died running it ({plan.reason})"


async def settle_without_release(store: Store, instance_ids: Sequence[str], *, window: float, now_ms: int) -> list[str]:
    """Forget dead instances whose orphans nobody has recovered within the window; returns those that are gone."""
    reading = Reading(store.redis)
    instances, jobs = await reading.instances(instance_ids), await reading.refs(instance_ids)
    gone = []
    for instance_id in instance_ids:
        stored = instances.get(instance_id)
        died_at_ms = stored.died_at_ms if stored is not None and stored.died_at_ms else 0
        if now_ms - died_at_ms > window * 1000:
            refs = jobs.get(instance_id, [])
            runs = await reading.runs(refs)
            for ref in refs:
                record = runs.get(ref)
                if record is None or record.instance_id != instance_id:  # what stands there is another run's, and stays
                    record = RunRecord(job_id=ref, instance_id=instance_id, run="-", started_at_ms=now_ms)
                await store.settle(Settlement(record=record), window_ms=int(window * 1000), minute=now_ms // 60_000)
        if await store.bury(instance_id):
            gone.append(instance_id)
    return gone


def _replaced(plan: Recovery, action: RecoveryAction) -> Recovery:
    return Recovery(
        job_id=plan.job_id,
        instance_id=plan.instance_id,
        action=action,
        function=plan.function,
        queue=plan.queue,
        library=plan.library,
        job_try=plan.job_try,
        deaths=plan.deaths,
        reason=plan.reason,
    )


def _events(result: Recovery) -> tuple[str, ...]:
    facts = {"job_id": result.job_id, "instance_id": result.instance_id, "function": result.function, "queue": result.queue}
    facts["library"] = result.library
    orphaned = encode_event("orphaned", **facts, reason=result.reason, job_try=result.job_try)
    if result.action is RecoveryAction.LEFT:
        return (orphaned,)
    kind = "quarantined" if result.action is RecoveryAction.QUARANTINED else "recovered"
    return (orphaned, encode_event(kind, **facts, deaths=result.deaths, delay=result.delay))


def _quarantined_fields(result: Recovery, kept: QuarantinedPayload) -> dict[str, str | bytes | int]:
    fields: dict[str, str | bytes | int] = {
        "library": result.library,
        "job_id": result.job_id,
        "queue": result.queue or "",
        "function": result.function or "",
        "instance_id": result.instance_id,
        "deaths": result.deaths,
        "reason": result.reason,
        "payload": kept.payload,
    }
    fields.update({f"extra:{name}": value for name, value in kept.extras.items()})
    return fields


def kept_payload(fields: dict[str, bytes]) -> QuarantinedPayload:
    """Read back what `Recoverer` kept of a quarantined job."""
    extras = {name.removeprefix("extra:"): value for name, value in fields.items() if name.startswith("extra:")}
    return QuarantinedPayload(payload=fields.get("payload", b""), extras=extras)


def field_text(fields: dict[str, bytes], name: str) -> str | None:
    """Read one text field of a quarantined job; None when it is empty or missing."""
    return text(fields[name]) or None if name in fields else None
