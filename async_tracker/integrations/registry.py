"""The worker libraries whose jobs a tracker can recover, and how a process that is no worker reaches the Redis of each.

Nothing here imports a worker library: an adapter needs a client and names.
"""

import os
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from async_tracker.connections.access import Access
from async_tracker.errors import ConfigError, StorageError
from async_tracker.integrations.known import redis_argument, redis_variable
from async_tracker.integrations.rights import Rights
from async_tracker.namespace import Namespace
from async_tracker.policy import NO_LIBRARY
from async_tracker.recovery.adapter import Adapter, Located, LocatesJobs
from async_tracker.store.instance_record import Description, StoredInstance

MakeAdapter = Callable[[Any, Callable[[str], bytes]], Adapter]
"""Makes an adapter of a client of the library's Redis, and of what gives a key of our namespace its full name."""


class MakeRights(Protocol):
    """Tells what recovery needs in a library's Redis; None where there is nothing to recover.

    ``described`` are workers of the library, none perhaps; ``queue`` is the tracker's setting; ``full_key`` gives a key of our
    namespace its full name there.
    """

    def __call__(self, described: Sequence[Description], *, queue: str | None, full_key: Callable[[str], bytes]) -> Rights | None: ...


def _as_it_says(description: Description) -> str | None:
    return description.broker


def _always(description: Description) -> bool:
    return True


def _unknown(described: Sequence[Description], *, queue: str | None, full_key: Callable[[str], bytes]) -> Rights | None:
    return None


Ctx = dict[str, Any]
"""What a worker passes to its hooks."""


class WorkerHooks(Protocol):
    """The hooks that a `Tracker` has as methods, for a worker whose settings name them. None of them raises."""

    async def on_startup(self, ctx: Ctx) -> None:
        """Register the worker."""
        ...

    async def on_shutdown(self, ctx: Ctx) -> None:
        """Deregister the worker."""
        ...

    async def on_job_start(self, ctx: Ctx) -> None:
        """A run starts."""
        ...

    async def on_job_end(self, ctx: Ctx) -> None:
        """A run ends."""
        ...

    async def after_job_end(self, ctx: Ctx) -> None:
        """The library has written what became of the job."""
        ...


class Install(Protocol):
    """Puts the hooks into a worker's settings, as `Tracker.install` does."""

    def __call__(self, settings: Any, *, only: Collection[str] | None, ignore: Collection[str] | None) -> Any: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Installable:
    """How the workers of one tracker are tracked by `Tracker.install`."""

    hooks: WorkerHooks
    install: Install


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One worker library: how its adapter is made, and what people are told of it."""

    name: str
    scope: str
    make_adapter: MakeAdapter
    own_client: Callable[[], Any]
    """Gives the client of a worker of the library in this process; None where there is none."""
    claims_at: Callable[[Description], str | None] = _as_it_says
    """Tells in which Redis a worker has its claims, as a url without a password."""
    recovers: Callable[[Description], bool] = _always
    """Whether the tracker gives back what such a worker holds; False where its broker does that by itself."""
    rights: MakeRights = _unknown
    installable: Installable | None = None
    """For a library whose workers are tracked by `Tracker.install`."""


def has_claims(library: str) -> bool:
    """Tell whether workers that say this of themselves belong to a worker library, known here or not.

    >>> has_claims("arq"), has_claims(NO_LIBRARY)
    (True, False)
    """
    return library != NO_LIBRARY


class Registry:
    """The libraries that a tracker knows.

    ``given`` has, by the name of the library, the clients or urls of those whose Redis is not the tracker's; for the others their
    environment variable is read when they are added. Raises ConfigError for what is neither a client nor a url.
    """

    def __init__(self, *, access: Access, namespace: str, given: Mapping[str, Any]) -> None:
        self._libraries: dict[str, Library] = {}
        self._access = access
        self._namespace = namespace
        self._given = {name: _access_of(name, redis) for name, redis in given.items() if redis is not None}

    def add(self, library: Library, *, given: Any = None) -> None:
        """Add a library. ``given``: a client or a url of its Redis, where that is not the tracker's; else ConfigError is raised."""
        self._libraries[library.name] = library
        if given is None and library.name not in self._given:
            given = os.environ.get(redis_variable(library.name)) or None
        if given is not None:
            self._given[library.name] = _access_of(library.name, given)

    def is_apart(self, name: str) -> bool:
        """Tell whether this process was told of a Redis of the library's own; else it is taken to be the tracker's."""
        return name in self._given

    def client_apart(self, name: str) -> Any:
        """Give a client of that Redis for the running loop. It is closed by `aclose` unless it was given as a client."""
        return self._given[name].client()

    @property
    def installable(self) -> Installable:
        """How `Tracker.install` tracks a worker. Raises LookupError when no library here can be tracked like that."""
        for library in self._libraries.values():
            if library.installable is not None:
                return library.installable
        raise LookupError("no known library has hooks for Tracker.install")

    @property
    def scopes(self) -> tuple[str, ...]:
        """What may stand before a job's id in keys and sets."""
        return tuple(library.scope for library in self._libraries.values() if library.scope)

    @property
    def libraries(self) -> tuple[Library, ...]:
        """Every library that is known here."""
        return tuple(self._libraries.values())

    def claims_at(self, description: Description) -> str:
        """Tell where a worker's library has its claims, for people: a url without a password."""
        library = self._libraries.get(description.library)
        return (library.claims_at(description) if library is not None else description.broker) or "?"

    def recovers(self, description: Description) -> bool:
        """Tell whether the tracker gives back what such a worker holds; of a library that is not known here, it is taken to."""
        library = self._libraries.get(description.library)
        return library.recovers(description) if library is not None else has_claims(description.library)

    def rights(self, name: str, described: Sequence[Description], *, client: Any, queue: str | None) -> Rights | None:
        """Tell what a user must be allowed on ``client``, the library's Redis; None if nothing is recovered or the library is unknown."""
        library = self._libraries.get(name)
        if library is None:
            return None
        return library.rights(described, queue=queue, full_key=Namespace(client, self._namespace).full_key)

    def adapter(self, name: str) -> Adapter | None:
        """Make the adapter of a library for the running loop; None for workers that no library stands behind."""
        library = self._libraries.get(name)
        if library is None:
            return None
        client = self.client_apart(name) if self.is_apart(name) else self._own_client(library) or self._access.client()
        return library.make_adapter(client, Namespace(client, self._namespace).full_key)

    def by_library(self, described: Iterable[Description]) -> list[tuple[Adapter, list[Description]]]:
        """Sort instances by their libraries, and give the adapter of each; those of libraries that are not known here are left out."""
        found: dict[str, list[Description]] = {}
        for description in described:
            found.setdefault(description.library, []).append(description)
        return [(adapter, found[name]) for name in sorted(found) if (adapter := self.adapter(name)) is not None]

    async def locate(self, job_id: str, stored: Iterable[StoredInstance]) -> Located | None:
        """Find a job that is not listed as in flight, by the libraries of these instances; None where none of them has it."""
        by_library: dict[str, dict[str, Description]] = {}
        for instance in stored:
            by_library.setdefault(instance.description.library, {})[instance.instance_id] = instance.description
        for name in sorted(by_library):
            adapter = self.adapter(name)
            found = await adapter.locate(job_id, by_library[name]) if isinstance(adapter, LocatesJobs) else None
            if found is not None:
                return found
        return None

    def _own_client(self, library: Library) -> Any:
        own = library.own_client()
        return self._access.fit(own) if own is not None else None

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[None]:
        """Use no client in the running loop that belongs to another one, while the block runs."""
        async with AsyncExitStack() as stack:
            for access in (self._access, *self._given.values()):
                await stack.enter_async_context(access.elsewhere())
            yield

    async def check(self, adapter: Adapter, instances: Iterable[StoredInstance]) -> None:
        """Raise StorageError when the library's jobs are in a Redis that this process was not told of."""
        name = adapter.library
        if self.is_apart(name) or self._libraries[name].own_client() is not None:
            return  # a process that was told the library's Redis, or works on it, knows which it is
        servers = {stored.description.claims_server for stored in instances if stored.description.library == name}
        servers.discard(None)
        if servers and await adapter.claims_server() not in servers:
            raise StorageError(
                f"the {name} workers of this namespace keep their jobs in another Redis: "
                f"write Tracker({redis_argument(name)}=...) or set {redis_variable(name)}"
            )

    def sharing(self, instances: Iterable[StoredInstance]) -> list[tuple[str, ...]]:
        """Give the groups of instances whose claims cannot be distinguished: none of a group is recovered while another of it lives.

        Instances of one process die together, so theirs need not be distinguished.
        """
        groups: list[list[StoredInstance]] = []
        for stored in instances:
            adapter = self.adapter(stored.description.library)
            if adapter is not None:
                for group in groups:
                    one = group[0].description
                    if one.library == stored.description.library and adapter.shares_claims(one, stored.description):
                        group.append(stored)
                        break
                else:
                    groups.append([stored])
        return [tuple(stored.instance_id for stored in group) for group in groups if len({_process(stored) for stored in group}) > 1]

    async def aclose(self) -> None:
        """Close the clients that were made of urls."""
        for access in self._given.values():
            await access.aclose()


def _process(stored: StoredInstance) -> tuple[str, int]:
    return stored.description.host_id, stored.description.pid


def _access_of(name: str, given: Any) -> Access:
    try:
        return Access(options={"url": given}) if isinstance(given, str) else Access(client=given)
    except ConfigError as exc:
        raise ConfigError(f"{redis_argument(name)}: {exc}") from exc
