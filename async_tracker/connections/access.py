"""How the tracker gets to Redis: whose client, which options, and synchronous clients of the same Redis.

The connection that speaks for an instance is made of such a client, in `async_tracker.connections.link`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import redis as sync_redis
import redis.asyncio as async_redis
from redis.asyncio.connection import Connection, SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool
from redis.exceptions import ResponseError

from async_tracker.config import DEFAULT_REDIS_URL, unknown_names
from async_tracker.connections.calls import call, leads_elsewhere
from async_tracker.connections.counterparts import async_counterpart, sync_counterpart, sync_options
from async_tracker.connections.locator import Locator, located_client, locator_of
from async_tracker.connections.replies import info_of, text
from async_tracker.connections.urls import KNOWN_OPTIONS, Route, read_url, shown_address, shown_route, shown_socket
from async_tracker.errors import ConfigError, StorageError

T = TypeVar("T")

SOCKET_TIMEOUT = 5.0
"""Seconds that the tracker waits for a reply of its own before it takes Redis for unreachable."""


def redis_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``redis_options`` into keywords of ``redis.asyncio.Redis``; an explicit option wins over the same part of ``url``.

    Raises ConfigError for an option that redis-py does not know and for a url that cannot be read.

    >>> sorted(redis_options({"url": "redis://tracker:6379/1", "db": 2}).items())
    [('db', 2), ('host', 'tracker'), ('port', 6379)]
    """
    return way_to(options)[1]


def way_to(options: Mapping[str, Any]) -> tuple[Route | None, dict[str, Any]]:
    """Do what `redis_options` does, and give the route where the url names servers to ask; None where it names the server itself.

    >>> route, rest = way_to({"url": "redis+sentinel://s1/main/1", "db": 2})
    >>> route.service, rest
    ('main', {'db': 2})
    """
    if not isinstance(options, Mapping):
        raise ConfigError(
            f'redis_options must be a dict, not {type(options).__name__}: write redis_options={{"url": "redis://host:6379/0"}}'
        )
    explicit = {name: value for name, value in options.items() if name != "url"}
    unknown_names(explicit, KNOWN_OPTIONS | {"url"}, what="redis option")
    route, merged = read_url(options["url"]) if options.get("url") is not None else (None, {})
    if "unix_socket_path" in merged and {"host", "port"} & set(explicit):
        del merged["unix_socket_path"]
    if route is not None and (beside := {"host", "port", "unix_socket_path"} & set(explicit)):
        raise ConfigError(f"{', '.join(sorted(beside))} beside a url that names servers to ask: write the hosts in the url alone")
    merged.update(explicit)
    if route is not None and route.service is None and merged.get("db"):
        raise ConfigError("a cluster has database 0 alone: leave out db")
    return route, merged


_OF_CLUSTER = (
    *("username", "password", "credential_provider", "client_name", "decode_responses", "encoding", "encoding_errors", "protocol"),
    *("health_check_interval", "socket_timeout", "socket_connect_timeout", "socket_keepalive", "socket_keepalive_options"),
)


def _way_of_cluster(client: Any) -> tuple[Route, dict[str, Any]]:
    """Give the route to a cluster and the options of a client of one of its nodes; taken by name, as a cluster's client adds its own."""
    theirs = client.connection_kwargs
    options = {name: theirs[name] for name in _OF_CLUSTER if theirs.get(name) is not None}
    if issubclass(theirs.get("connection_class", Connection), SSLConnection):
        options |= {"ssl": True, **{name: theirs[name] for name in KNOWN_OPTIONS if name.startswith("ssl_") and name in theirs}}
    seeds = tuple((node.host, int(node.port)) for node in client.nodes_manager.startup_nodes.values())
    return Route(seeds=seeds), options


def check_client(client: Any) -> None:
    """Raise ConfigError unless this is a client that the tracker can use."""
    if isinstance(client, async_redis.RedisCluster):
        raise ConfigError("a worker library keeps its jobs in a single Redis, or behind Sentinel, and not on a cluster: give that client")
    if isinstance(client, sync_redis.Redis | sync_redis.RedisCluster):
        raise ConfigError("redis= is a synchronous client: write redis.asyncio.Redis(...), or redis_options={...}")
    if not isinstance(client, async_redis.Redis) or isinstance(client, async_redis.client.Pipeline):
        raise ConfigError(
            f"redis= must be a redis.asyncio client, not {type(client).__name__}: write redis.asyncio.Redis(...), or redis_options={{...}}"
        )


def describe(client: Any) -> str:
    """Tell which Redis a client talks to, as a url without its password that can be given back.

    >>> describe(async_redis.Redis(host="db", port=7000, db=3, password="secret"))
    'redis://db:7000/3'
    """
    pool = client.connection_pool
    kwargs = pool.connection_kwargs
    database, is_tls = kwargs.get("db"), issubclass(pool.connection_class, SSLConnection)
    locator = locator_of(client)
    if locator is not None:
        return shown_route(locator.route, database, is_tls=is_tls)
    if isinstance(pool, SentinelConnectionPool):
        watchers = [watcher.connection_pool.connection_kwargs for watcher in pool.sentinel_manager.sentinels]
        seeds = tuple((watcher.get("host", "localhost"), watcher.get("port", 26379)) for watcher in watchers)
        return shown_route(Route(seeds=seeds, service=text(pool.service_name)), database, is_tls=is_tls)
    if "path" in kwargs:
        return shown_socket(kwargs["path"], database)
    return shown_address("rediss" if is_tls else "redis", kwargs.get("host", "localhost"), kwargs.get("port", 6379), database)


def check_mode(client: Any, info: Mapping[str, str]) -> None:
    """Raise StorageError, with what to write, where a client of one address was led to a sentinel or to a node of a cluster.

    ``info`` is what the server says of itself.
    """
    mode = info.get("redis_mode") or info.get("server_mode") or ""
    if mode not in ("sentinel", "cluster") or (mode == "cluster" and locator_of(client) is not None):
        return
    shown = describe(client)
    scheme, _, rest = shown.partition("://")
    hosts = rest.partition("/")[0]
    if mode == "sentinel":
        way = f"{scheme.partition('+')[0]}+sentinel://{hosts}/mymaster/0, with the name under which it watches over the primary"
        raise StorageError(f"{shown} is a sentinel: write {way}")
    way = f'{scheme.partition("+")[0]}+cluster://{hosts} and a namespace with a tag, as namespace="{{my_app}}"'
    raise StorageError(f"{shown} is a node of a cluster: write {way}")


class Access:
    """The Redis of a tracker: a client that its owner shares, or one of its own, made from options when it is first needed.

    A client of its own belongs to the event loop that it was made in: another ``asyncio.run`` gets another one. ``namespace`` is what
    is kept there; in a cluster it has one slot, and a client of its own leads to the owner of that.
    """

    def __init__(
        self,
        *,
        client: Any = None,
        options: Mapping[str, Any] | None = None,
        fallback_url: str | None = None,
        namespace: str | None = None,
    ) -> None:
        if client is not None and options is not None:
            raise ConfigError(
                "both redis and redis_options were given: write one of them (redis= shares your pool, redis_options= makes another)"
            )
        self.is_explicit = client is not None or options is not None
        """Whether this Redis was asked for; if not, an arq worker's own pool comes before it."""
        if isinstance(client, async_redis.RedisCluster) and namespace is not None:
            route, self._options = _way_of_cluster(client)
            client = None
        elif client is not None:
            check_client(client)
            route, self._options = None, {}
        else:
            route, self._options = way_to(options if options is not None else {"url": fallback_url or DEFAULT_REDIS_URL})
        self._given = client
        self._locator = Locator(route, options=self._options, namespace=namespace) if route is not None else None
        self._make: Callable[[], Any] | None = None
        self._lent: list[tuple[asyncio.AbstractEventLoop, Any]] = []
        """The clients of the workers in this process, each in its worker's loop; the newest last."""
        self._own: WeakKeyDictionary[asyncio.AbstractEventLoop, Any] = WeakKeyDictionary()
        self._elsewhere: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[int, tuple[Any, Any]]] = WeakKeyDictionary()
        """The loops in which no client is used that another loop uses, and in each of them what stands for such clients."""

    def share(self, client: Any) -> None:
        """Use this client of a worker in the running event loop from now on, as no other Redis was asked for."""
        check_client(client)
        self._lent.append((asyncio.get_running_loop(), client))

    def unshare(self, client: Any) -> None:
        """Forget a worker's client; its owner closes it. Another worker may share the same client, and goes on with it."""
        newest = next((entry for entry in reversed(self._lent) if entry[1] is client), None)
        if newest is not None:
            self._lent.remove(newest)

    def default_to(self, make: Callable[[], Any]) -> None:
        """Make clients so from now on, as no other Redis was asked for."""
        self._make = make

    def client(self) -> Any:
        """Give the client for the running loop."""
        if self._given is not None:
            return self.fit(self._given)
        loop = asyncio.get_running_loop()
        for lent_to, client in reversed(self._lent):
            if lent_to is loop:
                return client
        if loop not in self._own:
            self._own[loop] = self._make_one()
        return self._own[loop]

    def fit(self, client: Any) -> Any:
        """Give a client that may be used in the running loop for one that another loop may be using: itself, unless `elsewhere`."""
        if not self._elsewhere:
            return client
        try:
            standing = self._elsewhere.get(asyncio.get_running_loop())
        except RuntimeError:  # no loop runs here: who asks does not use it either
            standing = None
        if standing is None:
            return client
        if id(client) not in standing:
            standing[id(client)] = client, async_counterpart(sync_counterpart(client))
        return standing[id(client)][1]

    @asynccontextmanager
    async def elsewhere(self) -> AsyncIterator[None]:
        """Use no client in the running loop that belongs to another one, while the block runs; then close those that were made here."""
        loop = asyncio.get_running_loop()
        self._elsewhere[loop] = {}
        try:
            yield
        finally:
            made = [client for _, client in self._elsewhere.pop(loop).values()]
            own = self._own.pop(loop, None)
            for client in (*made, *((own,) if own is not None else ())):
                await client.aclose()

    def _make_one(self) -> Any:
        """Make a client of our own; of the Redis of a worker in another loop, where there is one."""
        if self._make is not None:
            return self._make()
        if self._lent:
            return async_counterpart(sync_counterpart(self._lent[-1][1]))
        return located_client(self._locator, self._options) if self._locator is not None else async_redis.Redis(**self._options)

    def sync_client(self) -> sync_redis.Redis:
        """Make a synchronous client of the same Redis; the caller closes it."""
        if self._given is not None or self._lent:
            return sync_counterpart(self._given or self._lent[-1][1])
        if self._make is not None:
            return sync_counterpart(self._make())
        options = sync_options(self._options)
        if self._locator is not None:
            located: sync_redis.Redis = located_client(self._locator, options, sync=True)
            return located
        return sync_redis.Redis(**options)

    async def asked(self, ask: Callable[[Any], Awaitable[T]]) -> T:
        """Ask a question of the client, and once more, by new connections, where the server says that it is not the one to ask.

        Raises what ``ask`` raises, and StorageError, with what to write, where the url leads to a sentinel or a node of a cluster.
        """
        client = self.client()
        try:
            return await ask(client)
        except StorageError as exc:
            if not isinstance(exc.__cause__, ResponseError):
                raise
            await self._check_way(client)
            if not leads_elsewhere(exc) or not self._may_leave(client):
                raise
        await client.connection_pool.disconnect(inuse_connections=False)
        return await ask(client)

    async def _check_way(self, client: Any) -> None:
        try:
            info = info_of(await call(client, "INFO", "server"))
        except StorageError:  # what was refused is said as it was
            return
        check_mode(client, info)

    def _may_leave(self, client: Any) -> bool:
        """Tell whether other connections of this client may lead elsewhere, and whether those at rest are ours to close."""
        return self.is_own(client) or locator_of(client) is not None or isinstance(client.connection_pool, SentinelConnectionPool)

    def is_own(self, client: Any) -> bool:
        """Tell whether a client is of our own making, so that nothing else uses its connections."""
        return any(client is own for own in self._own.values())

    async def aclose(self) -> None:
        """Close the client of our own; a shared one stays open."""
        own = self._own.pop(asyncio.get_running_loop(), None)
        self._own.clear()  # those of other loops are theirs to close
        if own is not None:
            await own.aclose()
