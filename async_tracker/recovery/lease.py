"""Who sweeps: one instance at a time for each library, elected by a lease in Redis.

The lease ends with its holder's connection: an instance that finds the connection gone takes the lease over at once. So the death of
the sweeper delays the next sweep by one turn of another instance, and not by the lifetime of the lease.
"""

import contextlib
import time
from dataclasses import dataclass

from async_tracker.errors import StorageError
from async_tracker.liveness.evidence import connection_state
from async_tracker.liveness.lookup import ask_connections, is_there, presence_call
from async_tracker.policy import Connection
from async_tracker.store.commands import Store
from async_tracker.store.observation import Connections

_SHORTEST_TTL = 3.0
"""Seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseHolder:
    """An instance that would hold the lease, and the server that it sweeps."""

    text: str
    """What stands in the lease: the instance's id and the connections that prove it to be there."""
    run_id: str

    @property
    def instance_id(self) -> str:
        """The id of that instance."""
        return instance_in(self.text)


def lease_holder(instance_id: str, connections: Connections) -> LeaseHolder:
    """Name an instance as a holder, with its connections to the server that it sweeps.

    >>> holder = lease_holder("web:1:ab", Connections(server="5f", ids={7: "async-tracker:ab"}))
    >>> holder.run_id, connections_in(holder.text).ids
    ('5f', {7: 'async-tracker:ab'})
    >>> instance_in(holder.text)
    'web:1:ab'
    """
    return LeaseHolder(text=f"{instance_id} {connections.encode()}", run_id=connections.server)


def connections_in(text: str) -> Connections:
    """Read a holder's connections from what stands in the lease."""
    return Connections.decode(text.rsplit(" ", 1)[-1])


def instance_in(text: str) -> str:
    """Read a holder's id from what stands in the lease."""
    return text.rsplit(" ", 1)[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Election:
    """Whether the lease is ours, and how many instances are registered."""

    is_ours: bool
    instances: int


class Lease:
    """The lease of one instance on the sweeps of one library; it lasts for ``ttl`` seconds from each election on."""

    def __init__(self, *, store: Store, name: str, ttl: float) -> None:
        self._store = store
        self._name = name
        self._ttl_ms = int(ttl * 1000)
        self._held_by = ""
        self._renewed_at = 0.0
        self._seen = ""
        """The other instance that held it at the last election; '' where there was none."""
        self._may_ask = True
        """The server has not refused to answer whether it has one connection."""

    @property
    def is_held(self) -> bool:
        """Whether the last election was won and the lease not given up since."""
        return bool(self._held_by)

    async def elect(self, holder: LeaseHolder) -> Election:
        """Take the lease or renew it; take it over where the connections of its holder are gone. Raises StorageError."""
        is_seen, is_ours, standing, instances = await self._ask(holder)
        if not is_ours and not is_seen and await self._is_gone(standing, run_id=holder.run_id):
            is_ours, _, _ = await self._store.lease(self._name, holder.text, ttl_ms=self._ttl_ms, replacing=standing)
        self._held_by = holder.text if is_ours else ""
        self._seen = "" if is_ours else standing
        self._renewed_at = time.monotonic()
        return Election(is_ours=is_ours, instances=instances)

    async def _ask(self, holder: LeaseHolder) -> tuple[bool, bool, str, int]:
        """Take the lease, renew it, or read who holds it; and tell first whether that is the one of the last election, and still there.

        The second is asked in the same message, by a command that costs the server the same among few clients and many. Its yes is sure:
        a server never gives an id twice. All else is for `_is_gone`.
        """
        before, known = self._seen, connections_in(self._seen)
        if not self._may_ask or known.server != holder.run_id or len(known.ids) != 1:
            is_ours, standing, instances = await self._store.lease(self._name, holder.text, ttl_ms=self._ttl_ms)
            return False, is_ours, standing, instances
        question = presence_call(*known.ids)
        reply, is_ours, standing, instances = await self._store.lease_after(question, self._name, holder.text, ttl_ms=self._ttl_ms)
        answer = is_there(reply)
        self._may_ask = answer is not None
        return answer is True and standing == before, is_ours, standing, instances

    async def renew(self, holder: LeaseHolder) -> bool:
        """Renew the lease in the middle of a long sweep, when a third of its time is over. Returns whether it is still ours."""
        if time.monotonic() - self._renewed_at >= self._ttl_ms / 3000.0:
            await self.elect(holder)
        return self.is_held

    async def _is_gone(self, holder_text: str, *, run_id: str) -> bool:
        registered = connections_in(holder_text)
        if registered.server not in ("", run_id):
            return True  # it held the lease of the server before this one: a sweep here is not begun yet
        seen = await ask_connections(self._store.redis.redis, [registered], run_id=run_id)
        return connection_state(registered, seen, shared=set()) is Connection.GONE

    def resign(self) -> tuple[str, str] | None:
        """Hold the lease no longer. Returns its name and its holder, to be given back in Redis; None when it was not held."""
        held_by, self._held_by = self._held_by, ""
        return (self._name, held_by) if held_by else None

    async def give_way(self) -> None:
        """Give the lease back, so that another instance sweeps next."""
        lease = self.resign()
        if lease is not None:
            with contextlib.suppress(StorageError):  # then it ends by itself
                await self._store.release_lease(*lease)


def lease_name(library: str, *, recovers: bool) -> str:
    """Name the lease on the sweeps of a library that recover, or on those that only watch.

    >>> lease_name("arq", recovers=True), lease_name("arq", recovers=False)
    ('arq', 'arq-watch')
    """
    return library if recovers else f"{library}-watch"


def make_lease(store: Store, *, library: str, recovers: bool, sweep_interval: float) -> Lease:
    """Make the lease on sweeps every ``sweep_interval`` seconds: one on those that recover, another one on those that only watch."""
    return Lease(store=store, name=lease_name(library, recovers=recovers), ttl=max(6 * sweep_interval, _SHORTEST_TTL))
