"""Recovers the orphans of dead instances: each is released or quarantined through its library's adapter, then settled.

The sweeper may die after any step. The next sweep finds the instance among the dead and goes on from there; nothing is done or
counted twice.
"""

import bisect
import logging
import math
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass

from async_tracker.connections.calls import is_of_wrong_type
from async_tracker.errors import StorageError, StorageUnavailable
from async_tracker.events.encoding import encode_event, facts_of, orphaned_event, tries_count_event
from async_tracker.policy import apart, is_poison, recovery_delay
from async_tracker.records import Recovery, RecoveryAction
from async_tracker.recovery.adapter import Adapter, Claim, QuarantinedPayload, Released, ReleasesMany
from async_tracker.recovery.leftovers import ClaimSearch, Leftovers
from async_tracker.recovery.orphans import FoundOrphan, Left
from async_tracker.recovery.quarantine import quarantine_error, quarantined_fields
from async_tracker.store.commands import Store
from async_tracker.store.counters import QUARANTINES, field_name
from async_tracker.store.reading import Reading
from async_tracker.store.writes import Settled, Settlement

logger = logging.getLogger("async_tracker")

_ACTIONS = {
    Released.RELEASED: RecoveryAction.RECOVERED,
    Released.QUARANTINED: RecoveryAction.QUARANTINED,
    Released.ABORTED: RecoveryAction.ABORTED,
    Released.ENDED: RecoveryAction.ENDED,
    Released.TAKEN: RecoveryAction.TAKEN,
    Released.NOTHING: RecoveryAction.LEFT,
}

_RELEASES = (RecoveryAction.RECOVERED, RecoveryAction.DELAYED)

_INSTANCES_AT_ONCE = 5
"""How many dead instances are sorted out at a time: some hundred orphans, which is what the loop is held for."""

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


class _Backlog:
    """What was found of dead instances and is not done yet."""

    def __init__(self) -> None:
        self.waiting: deque[_Death] = deque()
        self.begun: set[str] = set()
        """The instances whose recorded orphans were found."""
        self.search: ClaimSearch | None = None
        self.searched: set[str] = set()
        """The instances whose queues were gone through."""
        self.tried: set[tuple[str, str, str]] = set()
        """The orphans that were in line: each is tried once, until all is looked at anew."""
        self.given_back: set[Claim] = set()
        self.together: dict[str, _DiedTogether] = {}
        self.unread: set[str] = set()
        """Bad data is in the way at these."""
        self.only: Collection[str] | None = None
        """The ids of the jobs that are meant; None: all."""
        self.left_out: set[str] = set()
        """The instances that keep orphans which are not meant."""

    def keep_only(self, instance_ids: Sequence[str]) -> None:
        """Forget what belongs to other instances: they are not dead any more, or another sweeper has buried them."""
        wanted = set(instance_ids)
        self.waiting = deque(death for death in self.waiting if death.orphan.record.instance_id in wanted)
        self.begun &= wanted
        self.searched &= wanted
        self.unread &= wanted

    def take(self, count: int) -> list[_Death]:
        """Take the next orphans."""
        return [self.waiting.popleft() for _ in range(min(count, len(self.waiting)))]

    def is_done(self, instance_ids: Sequence[str]) -> bool:
        """Tell whether nothing is left to do for these instances, except to bury them."""
        return not self.waiting and self.search is None and self.searched.issuperset(instance_ids)


class Recoverer:
    """Recovers the orphans of instances that were declared dead. Raises StorageError when Redis refuses or is away.

    ``on_event`` is called with each event of which a recovery is the cause, as JSON. ``at_once`` orphans are released, and settled, in
    one round trip, each by a script of its own.
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
        at_once: int = 50,
    ) -> None:
        self._at_once = at_once
        self._backlog = _Backlog()
        self._store = store
        self._reading = reading
        self._adapter = adapter
        self._leftovers = leftovers
        self._limits = limits
        self._on_event = on_event
        self._logged_failures: set[str] = set()

    async def recover(
        self,
        instance_ids: Sequence[str],
        *,
        now_ms: int,
        dry_run: bool = False,
        within: float | None = None,
        on_the_way: Callable[[], Awaitable[bool]] | None = None,
        only: Collection[str] | None = None,
    ) -> Recovered:
        """Recover what these dead instances left, and bury those that have nothing left: recorded orphans first, the oldest of them first.

        Then the queues are searched for claims that no record knows, in parts. After ``within`` seconds no further part is begun; what
        was found and not done by then is kept for the next call, and an instance with orphans left stays among the dead. Where
        ``on_the_way``, which is called now and then, returns False, nothing further is done either.
        With ``dry_run`` nothing is changed, and what is returned is what would be done. ``only`` are the ids of the jobs that are meant:
        all others stay orphans, and count as before where it is decided what killed their instance.
        """
        if dry_run:
            left = await self._leftovers.find(instance_ids, now_ms=now_ms, adopt=False)
            deaths = [death for death in await self._deaths(left.orphans, {}, now_ms=now_ms) if _is_meant(death, only)]
            return Recovered(done=tuple([self._plan(death, dry_run=True) for death in deaths]))
        backlog, self._backlog = self._backlog, _Backlog()  # what raises in between leaves none: the next call looks at all anew
        backlog.keep_only(instance_ids)
        backlog.only = only
        until = time.monotonic() + within if within is not None else math.inf
        done: list[Recovery] = []
        hindered = False
        while backlog.waiting or await self._find_more(backlog, instance_ids, now_ms=now_ms):
            part = backlog.take(self._at_once)
            results = await self._recover_some(part)
            done += [result for result in results if isinstance(result, Recovery)]
            hindered = hindered or True in results
            is_ours = on_the_way is None or await on_the_way()
            if not is_ours or (time.monotonic() >= until and not backlog.is_done(instance_ids)):
                self._backlog = backlog
                return Recovered(done=tuple(done), ran_out=True, hindered=hindered)
        for instance_id in instance_ids:
            if instance_id not in backlog.unread | backlog.left_out:
                await self._leftovers.bury(instance_id)
        return Recovered(done=tuple(done), hindered=hindered)

    async def _find_more(self, backlog: _Backlog, instance_ids: Sequence[str], *, now_ms: int) -> bool:
        """Find the next orphans of these instances, if there may be any: first what is recorded, then what the queues hold.

        What rests on all claims being known waits until they are: a job that would be quarantined, of which it counts what died with it.
        """
        new = [name for name in instance_ids if name not in backlog.begun][:_INSTANCES_AT_ONCE]
        if new:
            left = await self._leftovers.sort(new, {}, set(), now_ms=now_ms, adopt=True, is_whole=False)
            backlog.begun.update(new)
            backlog.unread |= left.unread
            await self._wait_in_line(backlog, left, now_ms=now_ms, is_whole=False)
            return True
        if backlog.search is None:
            unsearched = [name for name in instance_ids if name not in backlog.searched]
            if not unsearched:
                return False
            backlog.search = await self._leftovers.search(unsearched)
        search = backlog.search
        has_found = await search.step()
        if has_found or search.is_over:
            names = [name for name in search.instance_ids if search.is_over or name in search.claims]
            await self._sort_searched(backlog, search, names, now_ms=now_ms)
        if search.is_over:
            backlog.searched.update(search.instance_ids)
            backlog.search = None
        return True

    async def _sort_searched(self, backlog: _Backlog, search: ClaimSearch, names: Sequence[str], *, now_ms: int) -> None:
        for start in range(0, len(names), _INSTANCES_AT_ONCE):
            part = names[start : start + _INSTANCES_AT_ONCE]
            unread = {name for name in part if name in search.unread}
            left = await self._leftovers.sort(part, search.claims, unread, now_ms=now_ms, adopt=True, is_whole=search.is_over)
            backlog.unread |= left.unread
            await self._give_back([claim for claim in left.fetched if claim not in backlog.given_back])
            backlog.given_back.update(left.fetched)
            await self._wait_in_line(backlog, left, now_ms=now_ms, is_whole=search.is_over)

    async def _wait_in_line(self, backlog: _Backlog, left: Left, *, now_ms: int, is_whole: bool) -> None:
        new = [orphan for orphan in left.orphans if _named(orphan) not in backlog.tried]
        most = math.inf if is_whole else self._limits.max_recoveries
        for death in await self._deaths(new, backlog.together, now_ms=now_ms, most=most):
            backlog.tried.add(_named(death.orphan))
            if _is_meant(death, backlog.only):
                backlog.waiting.append(death)
            else:
                backlog.left_out.add(death.orphan.record.instance_id)

    async def _recover_some(self, deaths: Sequence[_Death]) -> list[Recovery | bool]:
        """Recover some orphans, most of them in two round trips for all. Gives of each what was done; True where it was hindered."""
        plans = [(death.orphan, self._plan(death, dry_run=False)) for death in deaths]
        at_once = [pair for pair in plans if pair[1].action in _RELEASES] if isinstance(self._adapter, ReleasesMany) else []
        results: list[Recovery | bool] = []
        if len(at_once) > 1 and isinstance(self._adapter, ReleasesMany):
            try:
                released = await self._adapter.release_many([(orphan.record, plan.delay) for orphan, plan in at_once])
            except StorageUnavailable:
                raise
            except Exception as exc:  # the edge of an adapter, which may be of any library: then one after the other
                logger.debug("orphans are released one after the other: %r", exc)
                at_once = []
            else:
                results += await self._settle_some(at_once, released)
        else:
            at_once = []
        for orphan, plan in plans:
            if not any(orphan is done for done, _ in at_once):
                results.append(await self._recover_one(orphan, plan))
        return results

    async def _settle_some(
        self, planned: Sequence[tuple[FoundOrphan, Recovery]], released: Sequence[Released | StorageError]
    ) -> list[Recovery | bool]:
        results: list[Recovery | bool] = []
        acted: list[tuple[FoundOrphan, Recovery]] = []
        settlements: list[Settlement] = []
        for (orphan, plan), how in zip(planned, released, strict=True):
            if isinstance(how, StorageError):
                results.append(self._failed(orphan, how))
            elif how is Released.QUARANTINED:
                results.append(await self._recover_one(orphan, plan))
            else:
                is_released = how in (Released.RELEASED, Released.COUNTED)
                result = plan if is_released else _replaced(plan, _ACTIONS[how])
                acted.append((orphan, result))
                settlements.append(self._settlement(orphan, result, None, is_counted=how is Released.COUNTED))
        window_ms = int(self._limits.recovery_window * 1000)
        for (orphan, result), settlement, settled in zip(
            acted, settlements, await self._store.settle_many(settlements, window_ms=window_ms), strict=True
        ):
            if isinstance(settled, StorageError):
                results.append(self._failed(orphan, settled))
            else:
                self._announce(result, settlement, settled)
                results += [result] if settled else []
        return results

    async def _recover_one(self, orphan: FoundOrphan, plan: Recovery) -> Recovery | bool:
        try:
            return await self._carry_out(orphan, plan) or False
        except StorageUnavailable:
            raise
        except Exception as exc:  # the edge of the loop: an adapter may be of any library, and one orphan must not hold up the others
            return self._failed(orphan, exc)

    def _failed(self, orphan: FoundOrphan, exc: Exception) -> bool:
        """Log that an orphan could not be recovered. Returns whether another instance may be less hindered: not by bad data."""
        self._log_failure(orphan, exc)
        return not is_of_wrong_type(exc)

    async def _deaths(
        self, orphans: Sequence[FoundOrphan], by_instance: dict[str, _DiedTogether], *, now_ms: int, most: float = math.inf
    ) -> list[_Death]:
        """Count the deaths of each job, and put it beside those that died with it; those that count more than ``most`` are left out."""
        since_ms = now_ms - int(self._limits.recovery_window * 1000)
        before = await self._reading.deaths(sorted({orphan.record.ref for orphan in orphans}), since_ms=since_ms)
        deaths = []
        for orphan in orphans:
            times = _deaths_of(orphan, before[orphan.record.ref])
            if times <= most or not orphan.counts:
                together = by_instance.setdefault(orphan.record.instance_id, _DiedTogether())
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
        settlement = self._settlement(orphan, result, kept, is_counted=is_counted)
        settled = await self._store.settle(settlement, window_ms=int(self._limits.recovery_window * 1000))
        self._announce(result, settlement, settled)
        return settled is not Settled.BEFORE

    def _settlement(self, orphan: FoundOrphan, result: Recovery, kept: QuarantinedPayload | None, *, is_counted: bool) -> Settlement:
        acted = result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED, RecoveryAction.QUARANTINED)
        counters = ["orphaned"] if acted or result.action in (RecoveryAction.LEFT, RecoveryAction.ABORTED) else []
        if result.action in (RecoveryAction.RECOVERED, RecoveryAction.DELAYED):
            counters.append("recovered")
        beside = (QUARANTINES,) if kept is not None else ()
        return Settlement(
            record=orphan.record,
            counts=acted and orphan.counts,
            events=(*_events(orphan, result), *_counted(orphan, is_counted)) if counters else (),
            counters=(*(field_name(result.function, result.queue, counter) for counter in counters), *beside),
            quarantined=quarantined_fields(result, kept) if kept is not None else None,
        )

    def _announce(self, result: Recovery, settlement: Settlement, settled: Settled) -> None:
        """Say what was done, in the log and to the callbacks; nothing where another sweeper had settled it."""
        if settled:
            facts = {"job_id": result.job_id, "instance_id": result.instance_id, "action": str(result.action), "delay": result.delay}
            logger.warning("job %s was left by dead instance %s: %s", result.job_id, result.instance_id, result.action, extra=facts)
            for event in settlement.events[1 if settled is Settled.ANNOUNCED else 0 :]:
                self._on_event(event)


def _is_meant(death: _Death, only: Collection[str] | None) -> bool:
    return only is None or death.orphan.record.job_id in only


def _named(orphan: FoundOrphan) -> tuple[str, str, str]:
    record = orphan.record
    return record.instance_id, record.ref, record.token


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
    if result.action in (RecoveryAction.LEFT, RecoveryAction.ABORTED):
        return (orphaned,)
    kind = "quarantined" if result.action is RecoveryAction.QUARANTINED else "recovered"
    return (orphaned, encode_event(kind, **facts_of(orphan.record), deaths=result.deaths, delay=result.delay))


def _counted(orphan: FoundOrphan, is_counted: bool) -> tuple[str, ...]:
    return (tries_count_event(orphan.record),) if is_counted else ()
