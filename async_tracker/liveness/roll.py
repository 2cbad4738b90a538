"""What a sweeper remembers of the registered instances from one look to the next: hints at whom to look at, and never evidence. Pure."""

import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import TypeVar

from async_tracker.liveness.evidence import OpenConnections
from async_tracker.policy import DEFAULT_LIMITS
from async_tracker.store.instance_record import StoredInstance, encode_queues
from async_tracker.store.observation import Connections

T = TypeVar("T", str, float)

LEAST_SHARE = 200
"""How many instances are asked for at every look at least."""
LOOKS_A_ROUND = 6
"""After so many looks every instance has been asked for, whatever the counters of the server say."""
MOST_AT_ONCE = 3_000
"""Of more instances, the connections are not asked for in one look, except where all looks of a second are one."""


class Roll:
    """The registered instances, with the connections that they have named and what they said of themselves."""

    def __init__(self) -> None:
        self.connections: dict[str, Connections] = {}
        self.known: dict[str, StoredInstance] = {}
        """What registered instances said of themselves, and the dead that are not forgotten."""
        self.owed = 0
        """How many are still to be asked for since a connection may have been closed."""
        self._round: deque[str] = deque()
        self._reported: Counter[tuple[str, int]] = Counter()
        self._hosts: Counter[str] = Counter()
        self._queues: Counter[str] = Counter()
        self._limits: Counter[float] = Counter()

    def __len__(self) -> int:
        return len(self.connections)

    def __contains__(self, name: str) -> bool:
        return name in self.connections

    @property
    def queues(self) -> frozenset[str]:
        """The queues that instances work on, as they are listed."""
        return frozenset(self._queues) - {""}

    @property
    def late_after_ms(self) -> int:
        """After how long without a heartbeat the most impatient instance is late."""
        return int(1000 * min(self._limits, default=DEFAULT_LIMITS.heartbeat_ttl))

    def note(self, name: str, connections: Connections) -> None:
        """Note the connections of a registered instance."""
        before = self.connections.get(name)
        if before is None:
            self._round.append(name)
        else:
            self._reported.subtract(_ids(before))
        self.connections[name] = connections
        self._reported.update(_ids(connections))
        if len(self._reported) > 2 * len(self.connections) + 1_000:
            self._reported = +self._reported

    def learn(self, name: str, stored: StoredInstance) -> None:
        """Note what an instance said of itself."""
        self.forget_description(name)
        self.known[name] = stored
        self._count(stored, 1)

    def forget_description(self, name: str) -> None:
        """Forget what an instance said of itself."""
        stored = self.known.pop(name, None)
        if stored is not None:
            self._count(stored, -1)

    def _count(self, stored: StoredInstance, by: int) -> None:
        _add(self._hosts, stored.description.host_id, by)
        _add(self._queues, encode_queues(stored.description), by)
        _add(self._limits, stored.limits.heartbeat_ttl, by)

    def leave(self, name: str) -> None:
        """Note that an instance is no longer registered."""
        connections = self.connections.pop(name, None)
        if connections is not None:
            self._reported.subtract(_ids(connections))

    def shared(self, among: Iterable[Connections]) -> set[tuple[str, int]]:
        """Give those of these connections that several instances report: behind a multiplexing proxy they are evidence for none."""
        return {found for connections in among for found in _ids(connections) if self._reported[found] > 1}

    def hosts_without(self, silent: Iterable[str]) -> dict[str, int]:
        """Count the registered instances on every host, less those that are silent."""
        hosts = Counter(self._hosts)
        for name in [*silent, *(name for name in self.known if name not in self.connections)]:
            if name in self.known:
                hosts[self.known[name].description.host_id] -= 1
        return hosts

    def next_share(self, *, looks_a_second: float) -> list[str]:
        """Give the instances for whose connections to ask at this look, those first that were not asked for the longest.

        A share of all at every look; more where they are still to be asked for since a connection may have been closed.
        """
        least = max(LEAST_SHARE, math.ceil(len(self) / LOOKS_A_ROUND))
        found = self._take(max(least, min(self.owed, self._part(looks_a_second))))
        self.owed = max(0, self.owed - len(found))
        return found

    def after_a_disconnect(self, *, asked: int, looks_a_second: float) -> list[str]:
        """Give the instances to ask for in this same look, in which ``asked`` were asked for, since a connection may have been closed.

        All others; in a large fleet as many as it takes to have asked for all within a second.
        """
        self.owed = len(self) - asked
        found = self._take(max(0, min(self.owed, self._part(looks_a_second) - asked)))
        self.owed -= len(found)
        return found

    def _part(self, looks_a_second: float) -> int:
        return math.ceil(len(self) / (1 if len(self) <= MOST_AT_ONCE else max(1, math.floor(looks_a_second))))

    def _take(self, count: int) -> list[str]:
        found: list[str] = []
        for _ in range(len(self._round)):
            if len(found) >= count:
                break
            name = self._round.popleft()
            if name in self.connections:
                found.append(name)
                self._round.append(name)
        return found

    def missing(self, names: Iterable[str], seen: OpenConnections) -> list[str]:
        """Give those of these instances none of whose connections was seen: they need a closer look."""
        if seen.names is None:
            return []
        found = []
        for name in names:
            connections = self.connections[name]
            if connections.ids and connections.server == seen.run_id:
                for number, mark in connections.ids.items():
                    if seen.names.get(number) == mark:
                        break
                else:
                    found.append(name)
        return found


def _ids(connections: Connections) -> list[tuple[str, int]]:
    return [(connections.server, number) for number in connections.ids]


def _add(counter: Counter[T], value: T, by: int) -> None:
    counter[value] += by
    if counter[value] <= 0:
        del counter[value]
