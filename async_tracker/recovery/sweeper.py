"""One sweep: every instance is judged, the dead are declared dead, and what they left is recovered.

Which instance sweeps is decided by the lease, and how often by the loop of the instance.
"""

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from async_tracker.config import Settings
from async_tracker.events.encoding import encode_event
from async_tracker.liveness.evidence import FleetEvidence, live_hosts, weigh
from async_tracker.liveness.lookout import Lookout, nameless
from async_tracker.liveness.lookup import find_connections
from async_tracker.liveness.presence import Presence
from async_tracker.policy import STALLED, Connection, InstanceState, Verdict
from async_tracker.records import Recovery
from async_tracker.recovery.adapter import Adapter
from async_tracker.recovery.leftovers import Leftovers
from async_tracker.recovery.recoverer import Recovered, Recoverer, RecoveryLimits
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import StoredInstance, of_another_schema
from async_tracker.store.reading import Reading
from async_tracker.store.writes import Judged

logger = logging.getLogger("async_tracker")

_LIST_QUEUES_EVERY_MS = 60_000

_SHARES_CLAIMS = (
    "jobs of dead instance %s are not recovered yet: a live instance shares its claims (same broker id). "
    "They are recovered when that instance ends"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What one sweep did, and what it left undone."""

    done: tuple[Recovery, ...] = ()
    ran_out: bool = False
    """Its time was over before all orphans were recovered: the next sweep goes on."""
    hindered: bool = False
    """Redis refused to recover an orphan, or its adapter failed at it: another instance may be able to."""
    was_alone: bool = False
    """There was one instance, and none that is dead: until another one registers, no death can be found."""


class Sweeper:
    """Sweeps for the workers of one library; without a ``recoverer`` it only watches. Each method raises StorageError.

    From one sweep to the next it keeps only what it can read again: what instances said of themselves, and what it has logged.

    ``on_event`` is called with each event of which a sweep is the cause, as JSON. ``presence`` says whether this process itself was
    out of reach of the server, so that all heartbeats look old.
    """

    def __init__(
        self,
        *,
        store: Store,
        reading: Reading,
        library: str,
        leftovers: Leftovers,
        recoverer: Recoverer | None,
        presence: Presence,
        on_event: Callable[[str], None],
        sweep_interval: float = 0.5,
    ) -> None:
        self._store = store
        self._reading = reading
        self._library = library
        self._leftovers = leftovers
        self._recoverer = recoverer
        self._presence = presence
        self._lookout = Lookout(redis=store.redis, reading=reading, presence=presence, library=library, sweep_interval=sweep_interval)
        self._on_event = on_event
        self._known: dict[str, StoredInstance] = {}
        self._stalled: dict[str, str] = {}
        """Instances that are stalled, and the last heartbeat of each."""
        self._indistinct: set[str] = set()
        self._listed: frozenset[str] | None = None
        self._list_again_ms = 0

    @property
    def recovers(self) -> bool:
        """Whether it recovers orphans; otherwise it announces them, and they stay listed until another process recovers them."""
        return self._recoverer is not None

    async def sweep(
        self,
        run_id: str,
        *,
        itself: str = "",
        within: float | None = None,
        on_the_way: Callable[[], Awaitable[bool]] | None = None,
        only: Collection[str] | None = None,
    ) -> Swept:
        """Judge every instance of our library, declare the dead ones dead, recover their orphans.

        ``run_id`` is the server's. The instance ``itself`` that sweeps is not dead, whatever is stored of it: its heartbeats may be
        refused, or their times have been changed. After ``within`` seconds of recovering, or where ``on_the_way`` returns False, the
        other orphans are left to the next sweep. ``only``, where given, are the ids of the jobs that are recovered; all others stay
        orphans.
        """
        sighting = await self._lookout.look(run_id, also=self._stalled)
        evidence, roll = sighting.evidence, self._lookout.roll
        observation, self._known = evidence.observation, roll.known
        await self._list_queues(now_ms=observation.now_ms)
        verdicts = {}
        for name in observation.instances:
            gone_since_ms = await self._gone_since(name, evidence)
            verdicts[name] = weigh(evidence, self._known[name], gone_since_ms=gone_since_ms, hosts=sighting.hosts)
        died_at_ms = {name: at_ms for name, at_ms in observation.dead.items() if self._is_ours(name)}
        for name, verdict in verdicts.items():
            is_dead = verdict.state is InstanceState.DEAD and name != itself and self._is_ours(name)
            if is_dead and await self._declare_dead(name, verdict, evidence):
                died_at_ms[name] = observation.now_ms
            await self._note_stall(name, verdict, heartbeat=observation.instances[name])
        self._stalled = {name: heartbeat for name, heartbeat in self._stalled.items() if name in roll}
        living = [name for name in roll.connections if name not in died_at_ms] if died_at_ms else []
        recovered = await self._recover(died_at_ms, living, now_ms=observation.now_ms, within=within, on_the_way=on_the_way, only=only)
        return Swept(
            done=recovered.done,
            ran_out=recovered.ran_out,
            hindered=recovered.hindered,
            was_alone=sighting.instances == 1 and not observation.dead and not died_at_ms,
        )

    async def plan(self, dead: Sequence[str], living: Sequence[str], *, only: Collection[str] | None = None) -> list[Recovery]:
        """Tell what a sweep would recover of these dead instances, while these others live. Nothing is changed."""
        if self._recoverer is None:
            return []
        observation = await self._store.observe("")
        await self._learn([*dead, *living])
        planned = await self._recoverer.recover(self._distinguishable(dead, living), now_ms=observation.now_ms, dry_run=True, only=only)
        return list(planned.done)

    async def judge_all(self, run_id: str) -> tuple[FleetEvidence, dict[str, Verdict]]:
        """Give a verdict on every registered instance, by its id. Connections that have gone or come back are noted in Redis."""
        observation = self._presence.seen_from_here(await self._store.observe(run_id))
        evidence = await find_connections(self._store.redis.redis, observation)
        await self._learn([*observation.instances, *observation.dead])
        hosts = live_hosts(observation, self._known)
        verdicts = {}
        for name in observation.instances:
            gone_since_ms = await self._gone_since(name, evidence)
            verdicts[name] = weigh(evidence, self._known[name], gone_since_ms=gone_since_ms, hosts=hosts)
        return evidence, verdicts

    async def _learn(self, names: Sequence[str]) -> None:
        """Read what new instances said of themselves, once; forget those that are no longer there."""
        read = await self._reading.instances([name for name in names if name not in self._known])
        new = {**read.found, **{name: of_another_schema(name, fields) for name, fields in read.unreadable.items()}}
        self._known = {name: self._known.get(name) or new.get(name) or nameless(name, self._library) for name in names}

    async def _list_queues(self, *, now_ms: int) -> None:
        """List the queues that instances work on, for those who ask: when they have changed, and once a minute."""
        roll = self._lookout.roll
        if now_ms < self._list_again_ms and roll.queues == self._listed:
            return
        said_anew = await self._reading.instances(list(roll.known))  # one of an older version may have registered again, with other queues
        for name, stored in said_anew.found.items():
            roll.learn(name, stored)
        self._listed, self._list_again_ms = roll.queues, now_ms + _LIST_QUEUES_EVERY_MS
        await self._store.list_queues(self._listed, at_ms=now_ms)

    def _is_ours(self, name: str) -> bool:
        return self._known[name].description.library == self._library

    async def _gone_since(self, name: str, evidence: FleetEvidence) -> int | None:
        marked_ms = evidence.observation.gone.get(name)
        is_gone = evidence.states[name] is Connection.GONE
        if is_gone == (marked_ms is not None):
            return marked_ms
        return await self._store.mark_gone(name, evidence.observation.connections.get(name, ""), gone=is_gone) or None

    async def _declare_dead(self, name: str, verdict: Verdict, evidence: FleetEvidence) -> bool:
        observation = evidence.observation
        judged = Judged(
            instance_id=name,
            heartbeat=observation.instances[name],
            connections=observation.connections.get(name, ""),
            watchdog=observation.watchdogs.get(name, ""),
            reason=verdict.reason,
            is_blameless=verdict.is_blameless,
        )
        event = encode_event("instance_dead", instance_id=name, queue=self._known[name].description.queue, reason=verdict.reason)
        is_declared = await self._store.declare_dead(judged, event)
        if is_declared:
            logger.warning("instance %s is dead: %s", name, verdict.reason, extra={"instance_id": name})
            self._on_event(event)
        return is_declared

    async def _note_stall(self, name: str, verdict: Verdict, *, heartbeat: str) -> None:
        """Announce a stall, unless another sweeper has: each library has one, and each of them looks at all instances."""
        if verdict.state not in STALLED:
            self._stalled.pop(name, None)
        elif self._stalled.get(name) != heartbeat:
            event = encode_event("stalled", instance_id=name, state=str(verdict.state), reason=verdict.reason)
            is_news = await self._store.note_stall(name, heartbeat, event)
            self._stalled[name] = heartbeat
            if is_news:
                logger.warning("instance %s is stalled: %s", name, verdict.reason, extra={"instance_id": name})
                self._on_event(event)

    async def _recover(
        self,
        died_at_ms: Mapping[str, int],
        living: Sequence[str],
        *,
        now_ms: int,
        within: float | None,
        on_the_way: Callable[[], Awaitable[bool]] | None,
        only: Collection[str] | None,
    ) -> Recovered:
        """Recover what these dead instances left, or only announce it; what cannot be distinguished from others' claims is left."""
        if not died_at_ms:
            return Recovered()
        distinct = self._distinguishable(list(died_at_ms), living)
        if indistinct := [name for name in died_at_ms if name not in distinct]:
            self._note_indistinct(indistinct)
            await self._leftovers.forget({name: died_at_ms[name] for name in indistinct}, now_ms=now_ms)
        if distinct and self._recoverer is not None:
            return await self._recoverer.recover(distinct, now_ms=now_ms, within=within, on_the_way=on_the_way, only=only)
        if distinct:
            await self._leftovers.announce({name: died_at_ms[name] for name in distinct}, now_ms=now_ms)
        return Recovered()

    def _note_indistinct(self, names: Sequence[str]) -> None:
        for name in names if self._recoverer is not None else ():
            if name not in self._indistinct:
                logger.error(_SHARES_CLAIMS, name, extra={"instance_id": name})
        self._indistinct = set(names)

    def _distinguishable(self, dead: Sequence[str], living: Sequence[str]) -> list[str]:
        """Give the dead whose claims can be distinguished from those of the living of our library: these can be recovered."""
        adapter = self._leftovers.adapter
        if adapter is None:
            return list(dead)
        others = [self._known[name].description for name in living if self._is_ours(name)]
        return [name for name in dead if not any(adapter.shares_claims(self._known[name].description, other) for other in others)]


def make_sweeper(
    settings: Settings,
    store: Store,
    adapter: Adapter | None,
    *,
    library: str,
    on_event: Callable[[str], None],
    presence: Presence | None = None,
    at_once: int = 50,
) -> Sweeper:
    """Compose a sweeper; without an adapter, or with ``recover=False``, it only watches.

    ``presence`` is by default that of a process that is never taken to be out of reach. ``at_once`` orphans are recovered in one round
    trip.
    """
    reading = Reading(store.redis)
    window = settings.recovery_window
    leftovers = Leftovers(store=store, reading=reading, library=library, adapter=adapter, recovery_window=window, on_event=on_event)
    recoverer = None
    if adapter is not None and settings.recover:
        limits = RecoveryLimits(max_recoveries=settings.max_recoveries, recovery_window=window)
        recoverer = Recoverer(
            store=store, reading=reading, adapter=adapter, leftovers=leftovers, limits=limits, on_event=on_event, at_once=at_once
        )
    return Sweeper(
        store=store,
        reading=reading,
        library=library,
        leftovers=leftovers,
        recoverer=recoverer,
        presence=presence if presence is not None else Presence(),
        on_event=on_event,
        sweep_interval=settings.sweep_interval,
    )
