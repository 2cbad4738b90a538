"""Recovers the orphans of dead instances: each is released or quarantined through its library's adapter, then settled.

The sweeper may die after any step. The next sweep finds the instance among the dead and goes on from there; nothing is done or
counted twice.
"""

import bisect
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from async_tracker.connections.calls import is_of_wrong_type
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.events.encoding import encode_event, facts_of, orphaned_event, tries_count_event
from async_tracker.policy import apart, is_poison, recovery_delay
from async_tracker.records import Recovery, RecoveryAction
from async_tracker.recovery.adapter import Adapter, Claim, QuarantinedPayload, Released
from async_tracker.recovery.leftovers import Leftovers
from async_tracker.recovery.orphans import FoundOrphan
from async_tracker.recovery.quarantine import quarantine_error, quarantined_fields
from async_tracker.store.commands import Store
from async_tracker.store.counters import QUARANTINES, field_name
from async_tracker.store.reading import Reading
from async_tracker.store.writes import Settled, Settlement

logger = logging.getLogger("async_tracker")

_ACTIONS = {
    Released.RELEASED: RecoveryAction.RECOVERED,
    Released.QUARANTINED: RecoveryAction.QUARANTINED,
    Released.ENDED: RecoveryAction.ENDED,
    Released.TAKEN: RecoveryAction.TAKEN,
    Released.NOTHING: RecoveryAction.LEFT,
}

_NOT_RECOVERED = "job %s of dead instance %s cannot be recovered yet, the next sweep tries again: %s"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryLimits:
    """How often a job may die with its worker within ``recovery_window`` seconds, before it is quarantined."""

    max_recoveries: int
    recovery_window: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovered:
    """What one recovery did, and what it left undone."""

    done: tuple[Recovery, ...] = ()
    ran_out: bool = False
    """Its time was over before all orphans were recovered."""
    hindered: bool = False
    """Redis refused to recover an orphan, or the adapter failed at it."""


class _DiedTogether:
    """The orphans that died with one instance, and how often the job of each has died with its worker, this time included."""

    def __init__(self) -> None:
        self._deaths: list[int] = []
        self._suspected: list[int] = []

    def add(self, orphan: FoundOrphan, deaths: int) -> int:
        """Add an orphan; returns its position."""
        self._deaths.append(deaths)
        if orphan.counts and orphan.stands:
            bisect.insort(self._suspected, deaths)
        return len(self._deaths) - 1

    def __len__(self) -> int:
        return len(self._deaths)

    def suspects(self, deaths: int) -> int:
        """Count the orphans that are at least as suspect of the death as one whose job has died ``deaths`` times."""
        return len(self._suspected) - bisect.bisect_left(self._suspected, deaths)


@dataclass(frozen=True, slots=True)
class _Death:
    """An orphan, how often its job has died with its worker, this time included, and its place among those that died with it."""

    orphan: FoundOrphan
    times: int
    together: _DiedTogether
    position: int


class Recoverer:
    """Recovers the orphans of instances that were declared dead. Raises StorageError when Redis refuses or is away.

    ``on_event`` is called with each event of which a recovery is the cause, as JSON.
    """

    def __init__(
        self,
        *,
        store: Store,
        reading: Reading,
        adapter: Adapter,
        leftovers: Leftovers,
        limits: RecoveryLimits,
        on_event: Callable[[str], None],
    ) -> None:
        self._store = store
        self._reading = reading
        self._adapter = adapter
        self._leftovers = leftovers
        self._limits = limits
        self._on_event = on_event
        self._logged_failures: set[str] = set()

    async def recover(self, instance_ids: Sequence[str], *, now_ms: int, dry_run: bool = False, within: float | None = None) -> Recovered:
        """Recover what these dead instances left, the oldest first, and bury those that have nothing left.

        After ``within`` seconds no further orphan is begun; an instance with orphans left stays among the dead, for the next time.
        With ``dry_run`` nothing is changed, and what is returned is what would be done.
        """
        left = await self._leftovers.find(instance_ids, now_ms=now_ms, adopt=not dry_run)
        until = time.monotonic() + within if within is not None else math.inf
        done: list[Recovery] = []
        hindered = False
        for number, death in enumerate(await self._deaths(left.orphans, now_ms=now_ms)):
            if number and time.monotonic() >= until:
                return Recovered(done=tuple(done), ran_out=True, hindered=hindered)
            plan = self._plan(death, dry_run=dry_run)
            try:
                result = plan if dry_run else await self._carry_out(death.orphan, plan)
            except StorageUnavailable:
                raise
            except Exception as exc:  # the edge of the loop: an adapter may be of any library, and one orphan must not hold up the others
                hindered = hindered or not is_of_wrong_type(exc)  # no other instance is less hindered by bad data
                self._log_failure(death.orphan, exc)
                continue
            if result is not None:
                done.append(result)
        if not dry_run:
            await self._give_back(left.fetched)
            for instance_id in instance_ids:
                if instance_id not in left.unread:
                    await self._leftovers.bury(instance_id)
        return Recovered(done=tuple(done), hindered=hindered)

    async def _deaths(self, orphans: Sequence[FoundOrphan], *, now_ms: int) -> list[_Death]:
        since_ms = now_ms - int(self._limits.recovery_window * 1000)
        before = await self._reading.deaths(sorted({orphan.record.ref for orphan in orphans}), since_ms=since_ms)
        by_instance: dict[str, _DiedTogether] = {}
        deaths = []
        for orphan in orphans:
            together = by_instance.setdefault(orphan.record.instance_id, _DiedTogether())
            times = _deaths_of(orphan, before[orphan.record.ref])
            deaths.append(_Death(orphan, times, together, together.add(orphan, times)))
        return deaths

    async def _give_back(self, fetched: Sequence[Claim]) -> None:
        if fetched:
            try:
                await self._adapter.give_back(fetched)
            except StorageError as exc:
                owners = sorted({claim.instance_id for claim in fetched})
                if not is_of_wrong_type(exc):
                    raise
                if len(owners) == 1:
                    self._leftovers.note_unread(owners[0], exc)
                for owner in owners if len(owners) > 1 else ():
                    await self._give_back([claim for claim in fetched if claim.instance_id == owner])
                return
            names = sorted({claim.instance_id for claim in fetched})
            logger.info("gave back %d jobs that dead instances had fetched and not started", len(fetched), extra={"instance_ids": names})

    def _plan(self, death: _Death, *, dry_run: bool) -> Recovery:
        """Decide what is to be done with an orphan, by how often its job has died and by what died with it."""
        orphan, record, deaths = death.orphan, death.orphan.record, death.times
        suspects = death.together.suspects(deaths)
        if not orphan.stands:
            action, delay = RecoveryAction.TAKEN, 0.0
        elif orphan.counts and is_poison(deaths, max_recoveries=self._limits.max_recoveries, suspects=suspects):
            action, delay = RecoveryAction.QUARANTINED, 0.0
        else:
            delay = recovery_delay(deaths, jitter=apart(death.position, len(death.together), jitter=random.random()))
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

    def _log_failure(self, orphan: FoundOrphan, exc: Exception) -> None:
        """Log once that an orphan cannot be recovered: each sweep tries it again."""
        record = orphan.record
        if record.claim not in self._logged_failures:
            self._logged_failures.add(record.claim)
            defect = None if isinstance(exc, StorageError) else exc
            logger.error(_NOT_RECOVERED, record.job_id, record.instance_id, exc, exc_info=defect)

    async def _carry_out(self, orphan: FoundOrphan, plan: Recovery) -> Recovery | None:
        """Recover one orphan as planned. Returns what was done; None when another sweeper has settled it meanwhile."""
        kept: QuarantinedPayload | None = None
        is_counted = False
        result = plan
        if plan.action is RecoveryAction.QUARANTINED:
            kept = await self._adapter.quarantine(orphan.record, error=quarantine_error(plan))
        if kept is None and plan.action is not RecoveryAction.TAKEN:  # an earlier sweep may have released what this one would quarantine
            released = await self._adapter.release(orphan.record, delay=plan.delay)
            is_counted = released is Released.COUNTED
            released = Released.RELEASED if is_counted else released
            if released is not Released.RELEASED or plan.action is RecoveryAction.QUARANTINED:
                result = _replaced(plan, _ACTIONS[released])
            if released is Released.QUARANTINED:
                kept = await self._adapter.quarantine(orphan.record, error=quarantine_error(plan))
        return result if await self._settle(orphan, result, kept, is_counted=is_counted) else None

    async def _settle(self, orphan: FoundOrphan, result: Recovery, kept: QuarantinedPayload | None, *, is_counted: bool) -> bool:
        acted = result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED, RecoveryAction.QUARANTINED)
        counters = ["orphaned"] if acted or result.action is RecoveryAction.LEFT else []
        if result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED):
            counters.append("recovered")
        beside = (QUARANTINES,) if kept is not None else ()
        settlement = Settlement(
            record=orphan.record,
            counts=acted and orphan.counts,
            events=(*_events(orphan, result), *_counted(orphan, is_counted)) if counters else (),
            counters=(*(field_name(result.function, result.queue, counter) for counter in counters), *beside),
            quarantined=quarantined_fields(result, kept) if kept is not None else None,
        )
        window_ms = int(self._limits.recovery_window * 1000)
        settled = await self._store.settle(settlement, window_ms=window_ms)
        if settled:
            facts = {"job_id": result.job_id, "instance_id": result.instance_id, "action": str(result.action), "delay": result.delay}
            logger.warning("job %s was left by dead instance %s: %s", result.job_id, result.instance_id, result.action, extra=facts)
            for event in settlement.events[1 if settled is Settled.ANNOUNCED else 0 :]:
                self._on_event(event)
        return settled is not Settled.BEFORE


def _deaths_of(orphan: FoundOrphan, runs: Sequence[str]) -> int:
    """Count the runs of a job under which a worker has died; the present one is included once, where it counts."""
    before = [run for run in runs if run != orphan.record.token]
    return len(before) + (1 if orphan.counts else 0)


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


def _events(orphan: FoundOrphan, result: Recovery) -> tuple[str, ...]:
    orphaned = orphaned_event(orphan.record, reason=orphan.reason)
    if result.action is RecoveryAction.LEFT:
        return (orphaned,)
    kind = "quarantined" if result.action is RecoveryAction.QUARANTINED else "recovered"
    return (orphaned, encode_event(kind, **facts_of(orphan.record), deaths=result.deaths, delay=result.delay))


def _counted(orphan: FoundOrphan, is_counted: bool) -> tuple[str, ...]:
    return (tries_count_event(orphan.record),) if is_counted else ()
