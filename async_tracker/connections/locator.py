"""Which server to connect to, where that may change: the primary behind Sentinel, or the owner of a namespace's slot in a cluster.

A client of such a way is a plain one. Its connections ask, each time they connect, where the server is by now; and one that was told
that it is connected to the wrong server connects anew before it is used again.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import redis as sync_redis
import redis.asyncio as async_redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.connection import Connection as SyncConnection
from redis.connection import SSLConnection as SyncSSLConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError, ResponseError
from redis.retry import Retry as SyncRetry

from async_tracker.config import hash_tag
from async_tracker.connections.replies import text
from async_tracker.connections.urls import Route
from async_tracker.errors import ConfigError

Address = tuple[str, int]

ASK_SECONDS = 2.0
"""How long a server may take that is asked for the way, for connecting and for its answer; then the next one is asked."""

_ELSEWHERE = ("READONLY", "MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN")
_ELSEWHERE_CLASSES = ("ReadOnlyError", "MovedError", "AskError", "TryAgainError", "ClusterDownError", "MasterDownError")


def is_elsewhere(exc: object) -> bool:
    """Tell whether a server refused because it is not the one to ask: demoted, or not the owner of the slot, or not any more.

    It has done nothing then of what it was asked for.

    >>> [is_elsewhere(ResponseError(said)) for said in ("MOVED 8161 127.0.0.1:7001", "READONLY You can't write", "OOM no memory")]
    [True, True, False]
    """
    if not isinstance(exc, ResponseError):
        return False
    said = str(exc)
    return (
        type(exc).__name__ in _ELSEWHERE_CLASSES
        or said.partition(" ")[0] in _ELSEWHERE
        or "READONLY" in said  # before Redis 7 within what is said of a script
    )


class Locator:
    """Asks the servers of a route, one after the other, for the address to connect to. Methods may be called from any thread.

    ``options`` are those of the client, with which a cluster's nodes are asked as well; ``namespace`` is what is looked for in a
    cluster. Raises ConfigError for a namespace whose keys may be in several slots.
    """

    def __init__(self, route: Route, *, options: Mapping[str, Any], namespace: str | None = None) -> None:
        self.route = route
        self._slot: int | None = None
        if route.service is None:
            self._slot = slot_of(namespace)
            self._question: tuple[str, ...] = ("CLUSTER", "SLOTS")
            mine = ("username", "password", "credential_provider", "protocol")
            self._options = {name: options[name] for name in mine if options.get(name) is not None}
        else:
            self._question = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", route.service)
            self._options = dict(route.asking)
        self._is_tls = bool(options.get("ssl"))
        if self._is_tls:
            self._options |= {name: value for name, value in options.items() if name.startswith("ssl_") and value is not None}
        self._first = 0
        self._others: list[Address] = []

    def _asked(self) -> list[tuple[int, Address]]:
        """Give the servers to ask, the one that answered last first, with their numbers."""
        seeds = [*self.route.seeds, *self._others]
        first = self._first % len(seeds)
        return [(at % len(seeds), seeds[at % len(seeds)]) for at in range(first, first + len(seeds))]

    def doubt(self) -> None:
        """Ask another one first next time: what this one told was not right, or not right any more."""
        self._first += 1

    def _connection_options(self, address: Address, retry: Any) -> dict[str, Any]:
        limits = {"socket_timeout": ASK_SECONDS, "socket_connect_timeout": ASK_SECONDS, "retry": retry}
        return {**self._options, "host": address[0], "port": address[1], **limits}

    async def locate(self) -> Address:
        """Ask for the address. Raises redis-py's ConnectionError when no server knows it."""
        failures: list[tuple[Address, Exception | None]] = []
        for number, seed in self._asked():
            connection: Any = (SSLConnection if self._is_tls else Connection)(**self._connection_options(seed, Retry(NoBackoff(), 0)))
            try:
                await connection.connect()
                await connection.send_command(*self._question)
                found = self._read(await connection.read_response(), seed)
            except Exception as exc:  # whatever is wrong with one of them, the next one may know
                failures.append((seed, exc))
                continue
            finally:
                await connection.disconnect()
            if found is not None:
                self._first = number
                return found
            failures.append((seed, None))
        raise self._lost(failures)

    def locate_sync(self) -> Address:
        """Do what `locate` does, in a thread."""
        failures: list[tuple[Address, Exception | None]] = []
        for number, seed in self._asked():
            kind = SyncSSLConnection if self._is_tls else SyncConnection
            connection: Any = kind(**self._connection_options(seed, SyncRetry(NoBackoff(), 0)))
            try:
                connection.connect()
                connection.send_command(*self._question)
                found = self._read(connection.read_response(), seed)
            except Exception as exc:  # as above
                failures.append((seed, exc))
                continue
            finally:
                connection.disconnect()
            if found is not None:
                self._first = number
                return found
            failures.append((seed, None))
        raise self._lost(failures)

    def _read(self, reply: Any, seed: Address) -> Address | None:
        if self._slot is None:
            return (text(reply[0]), int(reply[1])) if reply else None
        nodes = list(_nodes_of(reply, seed))
        self._others = sorted({address for _, _, address in nodes} - set(self.route.seeds))
        return next((address for first, last, address in nodes if first <= self._slot <= last), None)

    def _lost(self, failures: Iterable[tuple[Address, Exception | None]]) -> ConnectionError:
        """Say why the address is not known; a server that is of another kind than the url says is named with what to write."""
        said = []
        for (host, port), exc in failures:
            why = str(exc).partition(", with args")[0] if exc is not None else ""
            if exc is None:
                why = f"it watches over no service {self.route.service!r}" if self._slot is None else f"no node has slot {self._slot}"
            elif "unknown command" in why.lower():
                why = f"it is no sentinel: write redis://{_bracketed(host)}:{port}/0"
            elif "cluster support disabled" in why:
                why = f"it is no node of a cluster: write redis://{_bracketed(host)}:{port}/0"
            said.append(f"{_bracketed(host)}:{port} ({why or type(exc).__name__})")
        whose = (
            f"sentinel knows the primary of {self.route.service!r}" if self._slot is None else f"node knows the owner of slot {self._slot}"
        )
        return ConnectionError(f"no {whose}: {', '.join(said)}")


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _nodes_of(reply: Any, seed: Address) -> Iterable[tuple[int, int, Address]]:
    """Read the primaries from the reply of CLUSTER SLOTS, as it is or as redis-py makes a dict of it. One without a host was asked.

    >>> list(_nodes_of([[0, 99, [b"10.0.0.1", 7000, b"id"]], [100, 200, [None, 7001, b"id"]]], ("seed", 1)))
    [(0, 99, ('10.0.0.1', 7000)), (100, 200, ('seed', 7001))]
    """
    if isinstance(reply, Mapping):
        reply = [[*slots, found["primary"]] for slots, found in reply.items()]
    for first, last, primary, *_ in reply:
        host = text(primary[0]) if primary[0] else ""
        yield int(first), int(last), (host if host not in ("", "?") else seed[0], int(primary[1]))


def slot_of(namespace: str | None) -> int:
    """Give the one slot of a namespace's keys. Raises ConfigError where it has no hash tag, and for None: what belongs to no namespace.

    >>> slot_of("{my_app}") == slot_of("{my_app}:other")
    True
    """
    if namespace is None:
        raise ConfigError(
            "a worker library keeps its jobs in a single Redis, or behind Sentinel, and not on a cluster: give that one's url"
        )
    if hash_tag(namespace) is None:
        raise ConfigError(
            f"namespace {namespace!r} may be in several slots of the cluster: write namespace={'{' + namespace.strip('{}') + '}'!r}, "
            f'in YAML TRACKER_NAMESPACE: "{"{" + namespace.strip("{}") + "}"}", with the quotes'
        )
    slot: int = key_slot(namespace.encode())
    return slot


class _Located:
    """What a connection does in addition whose server is asked for: shared by the asynchronous and the synchronous ones."""

    locator: Locator
    host: str
    port: int
    is_elsewhere = False
    """The server has said that it is not the one to ask."""

    def __init__(self, *, locator: Locator, **options: Any) -> None:
        self.locator = locator
        super().__init__(**options)

    def _note(self, exc: Exception) -> None:
        if is_elsewhere(exc):
            self.is_elsewhere = True
            self.locator.doubt()


class LocatedConnection(_Located, Connection):
    """A connection whose server is asked for each time it connects."""

    async def connect(self) -> None:
        """Connect unless connected to the right server."""
        if self.is_elsewhere:
            await self.disconnect()
        await super().connect()  # type: ignore[no-untyped-call]

    async def _connect(self) -> None:
        self.host, self.port = await self.locator.locate()
        self.is_elsewhere = False
        try:
            await super()._connect()  # type: ignore[no-untyped-call]
        except Exception:  # whatever it was, the server may be another one by now; it is raised all the same
            self.locator.doubt()
            raise

    async def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read a reply, and note where it says that another server is to be asked."""
        try:
            return await super().read_response(*arguments, **options)
        except ResponseError as exc:
            self._note(exc)
            raise


class LocatedSSLConnection(LocatedConnection, SSLConnection):
    """The same with TLS."""


class SyncLocatedConnection(_Located, SyncConnection):
    """The same for threads."""

    def connect(self) -> None:
        """Connect unless connected to the right server."""
        if self.is_elsewhere:
            self.disconnect()  # type: ignore[no-untyped-call]
        super().connect()  # type: ignore[no-untyped-call]

    def _connect(self) -> Any:
        self.host, self.port = self.locator.locate_sync()
        self.is_elsewhere = False
        try:
            return super()._connect()  # type: ignore[no-untyped-call]
        except Exception:  # whatever it was, the server may be another one by now; it is raised all the same
            self.locator.doubt()
            raise

    def read_response(self, *arguments: Any, **options: Any) -> Any:
        """Read a reply, and note where it says that another server is to be asked."""
        try:
            return super().read_response(*arguments, **options)  # type: ignore[no-untyped-call]
        except ResponseError as exc:
            self._note(exc)
            raise


class SyncLocatedSSLConnection(SyncLocatedConnection, SyncSSLConnection):
    """The same with TLS."""


_KINDS = {
    False: (async_redis, LocatedConnection, LocatedSSLConnection),
    True: (sync_redis, SyncLocatedConnection, SyncLocatedSSLConnection),
}


def located_client(locator: Locator, options: Mapping[str, Any], *, sync: bool = False) -> Any:
    """Make a client whose connections ask for their server. ``options`` are keywords of a client of that kind."""
    module, plain, with_tls = _KINDS[sync]
    pool = module.Redis(**options).connection_pool
    kwargs = {name: value for name, value in pool.connection_kwargs.items() if name not in ("host", "port")}
    connection_class = with_tls if options.get("ssl") else plain
    located = module.ConnectionPool(
        connection_class=connection_class, max_connections=options.get("max_connections"), locator=locator, **kwargs
    )
    return module.Redis.from_pool(located)


def locator_of(client: Any) -> Locator | None:
    """Give what a client's connections ask for their server; None for a client of another kind."""
    locator: Locator | None = client.connection_pool.connection_kwargs.get("locator")
    return locator
