"""The look of a sweeper: what has changed is read, and those instances alone are looked at closely that may not be as they were.

What is remembered from one look to the next only says which instances to look at. Each verdict rests on evidence that was read for it:
heartbeat, connections, marks and the watchdog's word by one script, and then the server's own list of connections.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from async_tracker.connections.calls import call_many, raised, run_scripts
from async_tracker.liveness.disconnects import Disconnects, may_have_closed, read_disconnects
from async_tracker.liveness.evidence import FleetEvidence, OpenConnections, connection_state, heartbeat_age
from async_tracker.liveness.lookup import Command, ask_connections, ids_calls, read_connections
from async_tracker.liveness.presence import Presence
from async_tracker.liveness.roll import Roll
from async_tracker.policy import Limits
from async_tracker.store.instance_record import Description, StoredInstance, of_another_schema
from async_tracker.store.observation import Changes, Connections, Observation, together
from async_tracker.store.reading import Reading
from async_tracker.store.scripts import observe_changes_call, observe_some_calls, read_changes, read_observed_some

_IN_A_TURN = 200
"""How many instances are gone through between two turns of the loop: about half a millisecond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sighting:
    """What one look found."""

    evidence: FleetEvidence
    """The evidence on those that were looked at closely; the others are as they were, and have beaten in time."""
    hosts: Mapping[str, int]
    """How many instances beat on every host; empty where no instance is silent, and it does not matter."""
    instances: int
    """How many are registered."""


class Lookout:
    """Looks for the sweeps of one instance. Each method raises StorageError.

    ``sweep_interval`` is in seconds. ``library`` is that of an instance of which nothing can be read.
    """

    def __init__(self, *, redis: Any, reading: Reading, presence: Presence, library: str, sweep_interval: float) -> None:
        self.roll = Roll()
        self._redis = redis
        self._reading = reading
        self._presence = presence
        self._library = library
        self._looks_a_second = 1.0 / sweep_interval
        self._run_id: str | None = None
        self._looked_at_ms = -1
        self._counters: Disconnects | None = None
        self._dead: set[str] = set()

    async def look(self, run_id: str, *, also: Collection[str] = ()) -> Sighting:
        """Look at the server ``run_id``; ``also`` are instances to be looked at closely in any case."""
        if run_id != self._run_id:
            self.roll, self._run_id, self._looked_at_ms, self._counters = Roll(), run_id, -1, None
        # What raises in between is no look: the next one begins with everything, and asks for all connections.
        looked_at_ms, self._looked_at_ms = self._looked_at_ms, -1
        counters_before, self._counters = self._counters, None
        asked = self.roll.next_share(looks_a_second=self._looks_a_second)
        changes, counters, seen = await self._ask(run_id, asked, since_ms=looked_at_ms)
        has_closed = may_have_closed(counters_before, counters)
        if not changes.are_known:
            await self._read_all(run_id, changes.dead)
        if has_closed:
            more = self.roll.after_a_disconnect(asked=len(asked), looks_a_second=self._looks_a_second)
            asked += more
            seen = _both(seen, await self._ask_for(more, run_id))
        missing = await self._missing(asked, seen)
        doubtful = {*changes.changed, *changes.doubtful, *missing, *also}
        observation, new = await self._look_closely(sorted(doubtful), changes, run_id)
        await self._learn([*new, *changes.changed], observation.dead)
        if len(self.roll) != changes.instances:
            await self._reconcile(run_id, observation.dead)
        evidence = await self._find(self._presence.seen_from_here(observation))
        self._looked_at_ms, self._counters = changes.now_ms, counters
        silent = [
            name
            for name in observation.instances
            if name in self.roll.known and heartbeat_age(observation, name) >= self.roll.known[name].limits.heartbeat_ttl
        ]
        hosts = self.roll.hosts_without(silent) if silent else {}
        return Sighting(evidence=evidence, hosts=hosts, instances=changes.instances)

    async def _ask(self, run_id: str, asked: Sequence[str], *, since_ms: int) -> tuple[Changes, Disconnects | None, OpenConnections]:
        """Read the counters of connections, then the connections of some instances, then what has changed: in one round trip."""
        beside: list[Command] = [("INFO", "clients"), ("INFO", "stats"), *self._calls(asked, run_id)]
        script = observe_changes_call(run_id, since_ms=since_ms, late_ms=self.roll.late_after_ms)
        replies = await run_scripts(self._redis, [script], beside=beside)
        (reply,) = raised(replies[len(beside) :])
        seen = await read_connections(replies[2 : len(beside)], run_id=run_id)
        return read_changes(reply, run_id), read_disconnects(*replies[:2]), seen

    def _calls(self, names: Sequence[str], run_id: str) -> list[Command]:
        connections = [self.roll.connections[name] for name in names]
        return ids_calls(sorted({number for one in connections if run_id and one.server == run_id for number in one.ids}))

    async def _ask_for(self, names: Sequence[str], run_id: str) -> OpenConnections:
        calls = self._calls(names, run_id)
        return await read_connections(await call_many(self._redis, calls) if calls else (), run_id=run_id)

    async def _missing(self, asked: Sequence[str], seen: OpenConnections) -> list[str]:
        found: list[str] = []
        for start in range(0, len(asked), _IN_A_TURN):
            found += self.roll.missing([name for name in asked[start : start + _IN_A_TURN] if name in self.roll], seen)
            await asyncio.sleep(0)
        return found

    async def _read_all(self, run_id: str, dead: Mapping[str, int]) -> None:
        """Begin with everything: who is registered, on which connections, and what those said of themselves who are new."""
        names, _ = await self._reading.names()
        registered = set(names)
        for name in [name for name in self.roll.connections if name not in registered]:
            self._left(name, dead)
        _, new = await self._observe(names, run_id)
        await self._learn(new, dead)

    async def _reconcile(self, run_id: str, dead: Mapping[str, int]) -> None:
        """Find out who has come and gone without a word, as instances of an older version do."""
        names, _ = await self._reading.names()
        registered = set(names)
        for name in [name for name in self.roll.connections if name not in registered]:
            self._left(name, dead)
        _, new = await self._observe([name for name in names if name not in self.roll], run_id)
        await self._learn(new, dead)

    async def _observe(self, names: Sequence[str], run_id: str) -> tuple[list[Observation], list[str]]:
        """Read the evidence on these instances, and note their connections. Returns it, and who of them was not known."""
        if not names:
            return [], []
        parts: list[Observation] = []
        new: list[str] = []
        replies = raised(await run_scripts(self._redis, observe_some_calls(names)))
        for part in read_observed_some(names, replies, run_id):
            parts.append(part)
            for name in part.instances:
                if name not in self.roll.known:
                    new.append(name)
                self.roll.note(name, Connections.decode(part.connections.get(name, "")))
            await asyncio.sleep(0)
        return parts, new

    async def _look_closely(self, doubtful: Sequence[str], changes: Changes, run_id: str) -> tuple[Observation, list[str]]:
        parts, new = await self._observe(doubtful, run_id)
        nothing = Observation(
            now_ms=changes.now_ms,
            server_since_ms=changes.server_since_ms,
            run_id=run_id,
            instances={},
            connections={},
            gone={},
            watchdogs={},
            dead={},
        )
        observation = together(parts) if parts else nothing
        dead = {**observation.dead, **changes.dead}  # one may have died since the changes were read
        for name in doubtful:
            if name not in observation.instances:
                self._left(name, dead)
        return replace(observation, dead=dead), new

    def _left(self, name: str, dead: Mapping[str, int]) -> None:
        self.roll.leave(name)
        if name not in dead:
            self.roll.forget_description(name)

    async def _learn(self, names: Collection[str], dead: Mapping[str, int]) -> None:
        """Read what these instances say of themselves, and the dead of whom that is not known; forget the dead that are buried."""
        for name in self._dead - dead.keys():
            if name not in self.roll:
                self.roll.forget_description(name)
        self._dead = set(dead)
        unknown_dead = [name for name in dead if name not in self.roll.known]
        wanted = [name for name in dict.fromkeys([*names, *unknown_dead]) if name in self.roll or name in dead]
        if not wanted:
            return
        read = await self._reading.instances(wanted)
        for name in wanted:
            stored = read.found.get(name)
            if stored is None and name in read.unreadable:
                stored = of_another_schema(name, read.unreadable[name])
            if stored is not None or name not in self.roll.known:
                self.roll.learn(name, stored or nameless(name, self._library))

    async def _find(self, observation: Observation) -> FleetEvidence:
        """Ask for the connections of those that were looked at closely, and put together what was found."""
        registered = {name: Connections.decode(observation.connections.get(name, "")) for name in observation.instances}
        seen = await ask_connections(self._redis, registered.values(), run_id=observation.run_id)
        shared = self.roll.shared(registered.values())
        states = {name: connection_state(connections, seen, shared=shared) for name, connections in registered.items()}
        return FleetEvidence(observation=observation, registered=registered, states=states)


def _both(one: OpenConnections, other: OpenConnections) -> OpenConnections:
    names = None if one.names is None or other.names is None else {**one.names, **other.names}
    return OpenConnections(names, one.run_id)


def nameless(name: str, library: str) -> StoredInstance:
    """Stand in for an instance whose record is missing or no hash: it is judged by the defaults, so that it goes some day."""
    description = Description(library=library, host="?", host_id=f"?{name}", pid=0)
    return StoredInstance(instance_id=name, description=description, limits=Limits(), started_at_ms=0)
