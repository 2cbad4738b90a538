"""What is done with the orphans of dead instances: released through their library's adapter, settled, buried.

Every step may be the last of a process that dies here: the next sweep finds the instance among the dead and carries on, and
nothing is done or counted twice.
"""

import bisect
import logging
import math
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.events.encoding import encode_event, facts_of, orphaned_event
from async_tracker.policy import apart, is_poison, recovery_delay
from async_tracker.records import Recovery, RecoveryAction
from async_tracker.recovery.adapter import Adapter, Claim, QuarantinedPayload, Released
from async_tracker.recovery.leftovers import Watch
from async_tracker.recovery.orphans import Found
from async_tracker.recovery.quarantine import quarantine_error, quarantined_fields
from async_tracker.store.commands import Store
from async_tracker.store.counters import field_name
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How often a job may die with its worker."""

    max_recoveries: int
    recovery_window: float


class _Company:
    """The orphans that died with one instance, and how often the job of each has died with its worker, this time included."""

    def __init__(self) -> None:
        self._deaths: list[int] = []
        self._suspected: list[int] = []

    def join(self, orphan: Found, deaths: int) -> int:
        """Take one in; returns its position."""
        self._deaths.append(deaths)
        if orphan.counts and orphan.stands:
            bisect.insort(self._suspected, deaths)
        return len(self._deaths) - 1

    def __len__(self) -> int:
        return len(self._deaths)

    def suspects(self, deaths: int) -> int:
        """Count those that may have killed their worker at least as likely as one that has died so often."""
        return len(self._suspected) - bisect.bisect_left(self._suspected, deaths)


@dataclass(frozen=True, slots=True)
class _Death:
    """An orphan, how often its job has died with its worker, this time included, and which of its company it is."""

    orphan: Found
    times: int
    company: _Company
    position: int


class Recoverer:
    """Recovers the orphans of instances that were declared dead. Raises StorageError when Redis is away."""

    def __init__(self, *, store: Store, adapter: Adapter, policy: Policy, on_event: Callable[[str], None]) -> None:
        self._store = store
        self.adapter = adapter
        self._policy = policy
        self._on_event = on_event
        self.watch = Watch(store=store, library=adapter.library, adapter=adapter, recovery_window=policy.recovery_window, on_event=on_event)
        self._refused: set[str] = set()
        self.left_undone = False
        """Redis did not let the last recovery do all of its work."""
        self.ran_out = False
        """The last recovery had no time left for all that there was to do."""

    async def recover(
        self, instance_ids: Sequence[str], *, now_ms: int, dry_run: bool = False, within: float | None = None
    ) -> list[Recovery]:
        """Recover what these dead instances left, the oldest first, and bury those that have nothing left.

        After ``within`` seconds of recovering no further orphan is begun; who has any left stays among the dead, for the next time.
        """
        left = await self.watch.find(instance_ids, now_ms=now_ms, adopt=not dry_run)
        until = time.monotonic() + within if within is not None else math.inf
        self.left_undone = self.ran_out = False
        done: list[Recovery] = []
        for number, death in enumerate(await self._deaths(left.orphans, now_ms=now_ms)):
            if number and time.monotonic() >= until:
                self.ran_out = True
                return done
            plan = self._plan(death, dry_run=dry_run)
            result = plan if dry_run else await self._try_carry_out(death.orphan, plan, now_ms=now_ms)
            if result is not None:
                done.append(result)
        if not dry_run:
            await self._give_back(left.fetched)
            for instance_id in instance_ids:
                await self._store.bury(instance_id)
        return done

    async def _deaths(self, orphans: Sequence[Found], *, now_ms: int) -> list[_Death]:
        since_ms = now_ms - int(self._policy.recovery_window * 1000)
        before = await Reading(self._store.redis).deaths(sorted({orphan.record.ref for orphan in orphans}), since_ms=since_ms)
        companies: dict[str, _Company] = {}
        deaths = []
        for orphan in orphans:
            company = companies.setdefault(orphan.record.instance_id, _Company())
            times = _deaths_of(orphan, before[orphan.record.ref])
            deaths.append(_Death(orphan, times, company, company.join(orphan, times)))
        return deaths

    async def _give_back(self, fetched: Sequence[Claim]) -> None:
        if fetched:
            await self.adapter.give_back(fetched)
            names = sorted({claim.instance_id for claim in fetched})
            logger.info("%d jobs that dead instances had only fetched were given back", len(fetched), extra={"instance_ids": names})

    def _plan(self, death: _Death, *, dry_run: bool) -> Recovery:
        """Decide what is to be done with an orphan, by what died with it."""
        orphan, record, deaths = death.orphan, death.orphan.record, death.times
        suspects = death.company.suspects(deaths)
        if not orphan.stands:
            action, delay = RecoveryAction.TAKEN, 0.0
        elif orphan.counts and is_poison(deaths, max_recoveries=self._policy.max_recoveries, suspects=suspects):
            action, delay = RecoveryAction.QUARANTINED, 0.0
        else:
            delay = recovery_delay(deaths, jitter=apart(death.position, len(death.company), jitter=random.random()))
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
        """Recover one orphan. Returns None when somebody else was quicker, and when it cannot be done.

        What Redis refuses to recover, or an adapter fails at, is left for the next sweep: it must not keep the others from being recovered.
        """
        try:
            return await self._carry_out(orphan, plan, now_ms=now_ms)
        except StorageUnavailable:
            raise
        except Exception as exc:  # the edge of the loop over all orphans: an adapter may be anybody's
            self.left_undone = True
            if orphan.record.token not in self._refused:
                self._refused.add(orphan.record.token)
                defect = None if isinstance(exc, StorageError) else exc
                logger.error("job %s of dead instance %s cannot be recovered: %s", plan.job_id, plan.instance_id, exc, exc_info=defect)
            return None

    async def _carry_out(self, orphan: Found, plan: Recovery, *, now_ms: int) -> Recovery | None:
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
        return result if await self._settle(orphan, result, kept, now_ms=now_ms) else None

    async def _settle(self, orphan: Found, result: Recovery, kept: QuarantinedPayload | None, *, now_ms: int) -> bool:
        acted = result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED, RecoveryAction.QUARANTINED)
        counters = ["orphaned"] if acted or result.action is RecoveryAction.LEFT else []
        if result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED):
            counters.append("recovered")
        settlement = Settlement(
            record=orphan.record,
            counts=acted and orphan.counts,
            events=_events(orphan, result) if counters else (),
            counters=tuple(field_name(result.function, result.queue, counter) for counter in counters),
            quarantined=quarantined_fields(result, kept) if kept is not None else None,
        )
        window_ms = int(self._policy.recovery_window * 1000)
        settled = await self._store.settle(settlement, window_ms=window_ms, minute=now_ms // 60_000)
        if settled:
            facts = {"job_id": result.job_id, "instance_id": result.instance_id, "action": str(result.action), "delay": result.delay}
            logger.warning("job %s was left by dead instance %s: %s", result.job_id, result.instance_id, result.action, extra=facts)
            for event in settlement.events[1 if settled is Settled.TOLD else 0 :]:
                self._on_event(event)
        return settled is not Settled.BEFORE


def _deaths_of(orphan: Found, runs: Sequence[str]) -> int:
    """Count under how many runs of a job a worker has died, the present one included once, where it counts."""
    before = [run for run in runs if run != orphan.record.run]
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


def _events(orphan: Found, result: Recovery) -> tuple[str, ...]:
    orphaned = orphaned_event(orphan.record, reason=orphan.reason)
    if result.action is RecoveryAction.LEFT:
        return (orphaned,)
    kind = "quarantined" if result.action is RecoveryAction.QUARANTINED else "recovered"
    return (orphaned, encode_event(kind, **facts_of(orphan.record), deaths=result.deaths, delay=result.delay))
