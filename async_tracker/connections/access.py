"""How the tracker gets to Redis: whose client, which options, and synchronous clients of the same Redis.

The connection that speaks for an instance is made of such a client, in `async_tracker.connections.link`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakKeyDictionary

import redis as sync_redis
import redis.asyncio as async_redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import SentinelConnectionPool

from async_tracker.config import DEFAULT_REDIS_URL, unknown_names
from async_tracker.connections.counterparts import KNOWN_OPTIONS, async_counterpart, sync_counterpart, sync_options
from async_tracker.connections.urls import options_of_url, shown_address, shown_service, shown_socket
from async_tracker.errors import ConfigError

SOCKET_TIMEOUT = 5.0
"""Seconds that the tracker waits for a reply of its own before it takes Redis for unreachable."""


def redis_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Turn ``redis_options`` into keywords of ``redis.asyncio.Redis``; an explicit option wins over the same part of ``url``.

    Raises ConfigError for an option that redis-py does not know and for a url that cannot be read.

    >>> sorted(redis_options({"url": "redis://tracker:6379/1", "db": 2}).items())
    [('db', 2), ('host', 'tracker'), ('port', 6379)]
    """
    if not isinstance(options, Mapping):
        raise ConfigError(
            f'redis_options must be a dict, not {type(options).__name__}: write redis_options={{"url": "redis://host:6379/0"}}'
        )
    explicit = {name: value for name, value in options.items() if name != "url"}
    unknown_names(explicit, KNOWN_OPTIONS | {"url"}, what="redis option")
    merged = options_of_url(options["url"]) if options.get("url") is not None else {}
    if "unix_socket_path" in merged and {"host", "port"} & set(explicit):
        del merged["unix_socket_path"]
    merged.update(explicit)
    return merged


def check_client(client: Any) -> None:
    """Raise ConfigError unless this is a client that the tracker can use."""
    if isinstance(client, async_redis.RedisCluster):
        raise ConfigError(
            "redis= is a RedisCluster: the tracker does not run on a cluster yet (the Namespace proxy does); give it a single Redis"
        )
    if isinstance(client, sync_redis.Redis):
        raise ConfigError("redis= is a synchronous client: write redis.asyncio.Redis(...), or redis_options={...}")
    if not isinstance(client, async_redis.Redis) or isinstance(client, async_redis.client.Pipeline):
        raise ConfigError(
            f"redis= must be a redis.asyncio client, not {type(client).__name__}: write redis.asyncio.Redis(...), or redis_options={{...}}"
        )


def describe(client: Any) -> str:
    """Tell which Redis a client talks to, as a url without its password.

    >>> describe(async_redis.Redis(host="db", port=7000, db=3, password="secret"))
    'redis://db:7000/3'
    """
    pool = client.connection_pool
    kwargs = pool.connection_kwargs
    database = kwargs.get("db")
    if isinstance(pool, SentinelConnectionPool):
        return shown_service(pool.service_name, database)
    if "path" in kwargs:
        return shown_socket(kwargs["path"], database)
    scheme = "rediss" if issubclass(pool.connection_class, SSLConnection) else "redis"
    return shown_address(scheme, kwargs.get("host", "localhost"), kwargs.get("port", 6379), database)


class Access:
    """The Redis of a tracker: a client that its owner shares, or one of its own, made from options when it is first needed.

    A client of its own belongs to the event loop that it was made in: another ``asyncio.run`` gets another one.
    """

    def __init__(self, *, client: Any = None, options: Mapping[str, Any] | None = None, fallback_url: str | None = None) -> None:
        if client is not None and options is not None:
            raise ConfigError(
                "both redis and redis_options were given: write one of them (redis= shares your pool, redis_options= makes another)"
            )
        if client is not None:
            check_client(client)
        self._given = client
        self.is_explicit = client is not None or options is not None
        """Whether this Redis was asked for; if not, an arq worker's own pool comes before it."""
        self._options = redis_options(options if options is not None else {"url": fallback_url or DEFAULT_REDIS_URL})
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
        standing = self._elsewhere.get(asyncio.get_running_loop())
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
        return async_counterpart(sync_counterpart(self._lent[-1][1])) if self._lent else async_redis.Redis(**self._options)

    def sync_client(self) -> sync_redis.Redis:
        """Make a synchronous client of the same Redis; the caller closes it."""
        if self._given is not None or self._lent:
            return sync_counterpart(self._given or self._lent[-1][1])
        if self._make is not None:
            return sync_counterpart(self._make())
        return sync_redis.Redis(**sync_options(self._options))

    async def aclose(self) -> None:
        """Close the client of our own; a shared one stays open."""
        own = self._own.pop(asyncio.get_running_loop(), None)
        self._own.clear()  # those of other loops are theirs to close
        if own is not None:
            await own.aclose()
