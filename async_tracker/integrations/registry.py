"""The worker libraries whose jobs can be recovered, how a process that is no worker reaches the Redis of each, and what it needs there.

Nothing here imports a worker library: an adapter needs a client and names.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from async_tracker.connections.access import Access
from async_tracker.errors import ConfigError, StorageError
from async_tracker.integrations.rights import Rights
from async_tracker.namespace import Namespace
from async_tracker.recovery.adapter import Adapter
from async_tracker.store.instance_record import Description, StoredInstance

PLAIN = "asyncio"
"""What stands for the library where there is none: workers of `Tracker.register`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """One worker library: how its adapter is made, and what people are told of it."""

    name: str
    scope: str
    make_adapter: MakeAdapter
    own_client: Callable[[], Any]
    """Gives the client that a worker of it in this process uses, if there is one."""
    claims_at: Callable[[Description], str | None] = _as_it_says
    """Tells in which Redis a worker has its claims, as a url without a password."""
    recovers: Callable[[Description], bool] = _always
    """Whether what such a worker holds is given back by us; not where its broker does that by itself."""
    rights: MakeRights = _unknown
    is_presumed: bool = False
    """Whether its workers are expected where none has registered yet."""


def has_claims(library: str) -> bool:
    """Tell whether a worker library stands behind such workers, known here or not.

    >>> has_claims("arq"), has_claims(PLAIN)
    (True, False)
    """
    return library != PLAIN


class Registry:
    """The libraries that a tracker knows. ``given`` are the clients or urls of those whose Redis is not the tracker's."""

    def __init__(self, libraries: Iterable[Library], *, access: Access, namespace: str, given: dict[str, Any]) -> None:
        self._libraries: dict[str, Library] = {}
        self._access = access
        self._namespace = namespace
        self._given: dict[str, Access] = {}
        for library in libraries:
            self.add(library, given=given.get(library.name))

    def add(self, library: Library, *, given: Any = None) -> None:
        """Know one library more. ``given``: a client or a url of its Redis, where that is not the tracker's."""
        self._libraries[library.name] = library
        access = _given_access(library.name, given)
        if access is not None:
            self._given[library.name] = access

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
        """Tell whether what such a worker holds is given back by us; a library that is not known here is taken at its word."""
        library = self._libraries.get(description.library)
        return library.recovers(description) if library is not None else has_claims(description.library)

    def rights(self, name: str, described: Sequence[Description], *, client: Any, queue: str | None) -> Rights | None:
        """Tell what a user must be allowed on ``client``, the library's Redis; None where nothing is recovered, or it is not known."""
        library = self._libraries.get(name)
        if library is None:
            return None
        return library.rights(described, queue=queue, full_key=Namespace(client, self._namespace).full_key)

    def adapter(self, name: str) -> Adapter | None:
        """Make the adapter of a library for the running loop; None for workers that no library stands behind."""
        library = self._libraries.get(name)
        if library is None:
            return None
        client = self._given[name].client() if name in self._given else library.own_client() or self._access.client()
        return library.make_adapter(client, Namespace(client, self._namespace).full_key)

    async def check(self, adapter: Adapter, instances: Iterable[StoredInstance]) -> None:
        """Raise StorageError when the library's jobs are in a Redis that this process was not told of."""
        name = adapter.library
        if name in self._given or self._libraries[name].own_client() is not None:
            return  # whoever names the library's Redis, or works on it, knows which it is
        servers = {stored.description.claims_server for stored in instances if stored.description.library == name}
        servers.discard(None)
        if servers and await adapter.claims_server() not in servers:
            raise StorageError(
                f"the {name} workers of this namespace keep their jobs in another Redis: "
                f"write Tracker({name}_redis=...) or set {_variable(name)}"
            )

    def sharing(self, instances: Iterable[StoredInstance]) -> list[tuple[str, ...]]:
        """Give the groups of instances whose claims cannot be told apart: none of a group is recovered while another of it lives.

        Instances of one process die together, so they are nobody's concern.
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


def _variable(name: str) -> str:
    return f"TRACKER_{name.upper()}_REDIS_URL"


def _given_access(name: str, given: Any) -> Access | None:
    given = given if given is not None else os.environ.get(_variable(name)) or None
    if given is None:
        return None
    if isinstance(given, str):
        return Access(options={"url": given})
    try:
        return Access(client=given)
    except ConfigError as exc:
        raise ConfigError(f"{name}_redis: {exc}") from exc
