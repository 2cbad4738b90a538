"""One pass that looks for dead instances and recovers their orphans; one instance at a time does it, elected by a lease.

The lease ends with its holder's connection: whoever finds that gone takes over at once, so that the death of the sweeper
costs one look more, not a lifetime of the lease.
"""

import contextlib
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from async_tracker.config import Settings
from async_tracker.errors import StorageError
from async_tracker.events.encoding import encode_event
from async_tracker.liveness.evidence import Findings, connection_state, live_hosts, weigh
from async_tracker.liveness.lookup import find, see_connections
from async_tracker.liveness.presence import Presence
from async_tracker.policy import Connection, InstanceState, Limits, Verdict, standby_interval
from async_tracker.records import Recovery
from async_tracker.recovery.adapter import Adapter
from async_tracker.recovery.lease import Seat, holder_connections
from async_tracker.recovery.leftovers import Watch
from async_tracker.recovery.recoverer import Policy, Recoverer
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, StoredInstance, of_another_schema
from async_tracker.store.observation import Observation
from async_tracker.store.reading import Reading
from async_tracker.store.writes import Judged

logger = logging.getLogger("async_tracker")

_BUDGET = 1.0
"""Seconds that one sweep may spend on recovering: well within the lease, and so that the next death is soon judged."""

_BREATH = 0.02
"""Seconds between two sweeps while there is a backlog: the worker whose loop this is has jobs of its own."""

_ALONE_SWEEPS = 10
"""Of so many turns in a row an instance sweeps once while there is nobody but itself: there nobody can die."""

_STALLED = (InstanceState.STALLED_BLOCKED, InstanceState.STALLED_SILENT)


@dataclass(slots=True, kw_only=True)
class Sweeper:
    """Sweeps for the workers of one library. Only what a sweep may forget is kept here: the descriptions that do not change."""

    store: Store
    library: str
    sweep_interval: float
    watch: Watch
    recoverer: Recoverer | None
    """None: watch only; orphans are told and stay listed until somebody recovers them, or until the window is over."""
    on_event: Callable[[str], None]
    presence: Presence = field(default_factory=Presence)
    known: dict[str, StoredInstance] = field(default_factory=dict)
    stalled: set[str] = field(default_factory=set)
    untold: set[str] = field(default_factory=set)
    is_sweeper: bool = False
    is_hindered: bool = False
    """The last sweep had to leave something undone."""
    is_behind: bool = False
    """The last sweep has left orphans for the next, so as to judge in between and to keep the lease."""
    instances: int = 1
    was_alone: bool = False
    """The last sweep found one instance and nothing left to do."""
    turns_alone: int = 0
    """In a row; the lease tells at each of them that there is still one instance."""

    @property
    def _lease(self) -> str:
        return self.library if self.recoverer is not None else f"{self.library}-watch"

    @property
    def _lease_ttl_ms(self) -> int:
        return int(max(6 * self.sweep_interval, 3.0) * 1000)

    async def step(self, seat: Seat) -> list[Recovery]:
        """Sweep if it is our turn. Returns what was recovered. What we are refused another one may be allowed: then it is their turn."""
        self.is_sweeper = await self._elected(seat)
        if not self.is_sweeper:
            self.was_alone = False
            return []
        self.turns_alone = self.turns_alone + 1 if self.was_alone and self.instances == 1 else 0
        if self.turns_alone % _ALONE_SWEEPS:
            return []
        try:
            done = await self.sweep(seat.run_id, within=_BUDGET)
        except StorageError:
            await self._give_way(seat)
            raise
        if self.is_hindered:
            await self._give_way(seat)
        return done

    async def _give_way(self, seat: Seat) -> None:
        lease = self.resign(seat)
        if lease is not None:
            with contextlib.suppress(StorageError):  # then it ends by itself
                await self.store.release_lease(*lease)

    async def _elected(self, seat: Seat) -> bool:
        ours, holder, self.instances = await self.store.lease(self._lease, seat.holder, ttl_ms=self._lease_ttl_ms)
        if ours:
            return True
        registered = holder_connections(holder)
        seen = await see_connections(self.store.redis.redis, [registered], run_id=seat.run_id)
        if connection_state(registered, seen, shared=set()) is not Connection.GONE:
            return False
        ours, _, _ = await self.store.lease(self._lease, seat.holder, ttl_ms=self._lease_ttl_ms, replacing=holder)
        return ours

    def resign(self, seat: Seat) -> tuple[str, str] | None:
        """Sweep no more. Returns the lease that is to be given back, and its holder; None when there is none."""
        if not self.is_sweeper:
            return None
        self.is_sweeper = False
        return self._lease, seat.holder

    async def sweep(self, run_id: str, *, within: float | None = None) -> list[Recovery]:
        """Judge every instance of our library, declare the dead ones dead, recover their orphans.

        After ``within`` seconds of recovering the rest is left to the next sweep, and ``is_behind`` tells.
        """
        self.is_hindered = self.is_behind = self.was_alone = False
        findings, verdicts = await self.judge_all(run_id)
        self.was_alone = len(verdicts) == 1 and not findings.observation.dead
        dead = [name for name in findings.observation.dead if self._is_ours(name)]
        for name, verdict in verdicts.items():
            if verdict.state is InstanceState.DEAD and self._is_ours(name) and await self._declare_dead(name, verdict, findings):
                dead.append(name)
            await self._note_stall(name, verdict)
        living = [name for name in verdicts if name not in dead]
        return await self._recover(dead, living, findings.observation, within=within) if dead else []

    async def judge_all(self, run_id: str, *, mark: bool = True) -> tuple[Findings, dict[str, Verdict]]:
        """Give a verdict on every registered instance; with ``mark``, connections that have gone or come back are noted."""
        observation = self.presence.seen_from_here(await self.store.observe(run_id))
        findings = await find(self.store.redis.redis, observation)
        await self._learn([*observation.instances, *observation.dead])
        hosts = live_hosts(observation, self.known)
        verdicts = {}
        for name in observation.instances:
            gone_since_ms = await self._gone_since(name, findings, mark=mark)
            verdicts[name] = weigh(findings, self.known[name], gone_since_ms=gone_since_ms, hosts=hosts, draining=False)
        return findings, verdicts

    async def _learn(self, names: Sequence[str]) -> None:
        """Read what new instances said of themselves, once; forget those that are no more."""
        unknown = [name for name in names if name not in self.known]
        reading = Reading(self.store.redis)
        read = await reading.instances(unknown)
        read.update({name: of_another_schema(name, fields) for name, fields in reading.strange.items()})
        self.known = {name: self.known.get(name) or read.get(name) or _nameless(name, self.library) for name in names}

    def _is_ours(self, name: str) -> bool:
        return self.known[name].description.library == self.library

    async def _gone_since(self, name: str, findings: Findings, *, mark: bool) -> int | None:
        marked = findings.observation.gone.get(name)
        gone = findings.states[name] is Connection.GONE
        if mark and gone != (marked is not None):
            return await self.store.mark_gone(name, findings.observation.connections.get(name, ""), gone=gone) or None
        return marked if gone else None

    async def _declare_dead(self, name: str, verdict: Verdict, findings: Findings) -> bool:
        observation = findings.observation
        judged = Judged(
            instance_id=name,
            heartbeat=observation.instances[name],
            connections=observation.connections.get(name, ""),
            watchdog=observation.watchdogs.get(name, ""),
            reason=verdict.reason,
        )
        event = encode_event("instance_dead", instance_id=name, queue=self.known[name].description.queue, reason=verdict.reason)
        declared = await self.store.declare_dead(judged, event)
        if declared:
            logger.warning("instance %s is dead: %s", name, verdict.reason, extra={"instance_id": name})
            self.on_event(event)
        return declared

    async def _note_stall(self, name: str, verdict: Verdict) -> None:
        if verdict.state not in _STALLED:
            self.stalled.discard(name)
        elif name not in self.stalled:
            self.stalled.add(name)
            logger.warning("instance %s is stalled: %s", name, verdict.reason, extra={"instance_id": name})
            event = encode_event("stalled", instance_id=name, state=str(verdict.state), reason=verdict.reason)
            await self.store.publish(event)
            self.on_event(event)

    async def _recover(
        self, dead: Sequence[str], living: Sequence[str], observation: Observation, *, within: float | None
    ) -> list[Recovery]:
        told_apart = self.told_apart(dead, living)
        now_ms = observation.now_ms
        died_at_ms = {name: observation.dead.get(name, now_ms) for name in dead}
        if left := [name for name in dead if name not in told_apart]:
            self._note_untold(left)
            await self.watch.forget({name: died_at_ms[name] for name in left}, now_ms=now_ms)
        if not told_apart:
            return []
        if self.recoverer is None:
            await self.watch.look({name: died_at_ms[name] for name in told_apart}, now_ms=now_ms)
            return []
        done = await self.recoverer.recover(told_apart, now_ms=now_ms, within=within)
        self.is_behind = self.recoverer.ran_out
        self.is_hindered = self.recoverer.left_undone
        return done

    def _note_untold(self, left: Sequence[str]) -> None:
        if self.recoverer is not None and (news := [name for name in left if name not in self.untold]):
            logger.error("what %s held cannot be told from what another instance holds: not recovered before that one ends",
                         ", ".join(news), extra={"instance_ids": news})  # fmt: skip
        self.untold = set(left)

    def told_apart(self, dead: Sequence[str], living: Sequence[str]) -> list[str]:
        """Give the dead that can be recovered: what they hold can be told from what the living of our library hold."""
        if self.watch.adapter is None:
            return list(dead)
        others = [self.known[name].description for name in living if self._is_ours(name)]
        shares = self.watch.adapter.shares_claims
        return [name for name in dead if not any(shares(self.known[name].description, other) for other in others)]

    def interval(self) -> float:
        """Seconds until the next step: the sweeper's own, or the looser watch of a stand-by."""
        if self.is_sweeper:
            return min(self.sweep_interval, _BREATH) if self.is_behind else self.sweep_interval
        return standby_interval(self.sweep_interval, self.instances) * random.uniform(0.5, 1.0)


def _nameless(name: str, library: str) -> StoredInstance:
    """Stand in for an instance whose record is missing or no hash: judged by the defaults, so that it goes some day."""
    description = Description(library=library, host="?", host_id=f"?{name}", pid=0)
    return StoredInstance(instance_id=name, description=description, limits=Limits(), started_at_ms=0)


def make_sweeper(settings: Settings, store: Store, adapter: Adapter | None, *, library: str, on_event: Callable[[str], None]) -> Sweeper:
    """Compose a sweeper; without an adapter, or with ``recover=False``, it only watches."""
    recoverer = None
    if adapter is not None and settings.recover:
        policy = Policy(max_recoveries=settings.max_recoveries, recovery_window=settings.recovery_window)
        recoverer = Recoverer(store=store, adapter=adapter, policy=policy, on_event=on_event)
    watch = Watch(store=store, library=library, adapter=adapter, recovery_window=settings.recovery_window, on_event=on_event)
    return Sweeper(
        store=store, library=library, sweep_interval=settings.sweep_interval, watch=watch, recoverer=recoverer, on_event=on_event
    )
