"""A client of the other kind with the same options: synchronous for asynchronous, and back; and a lone connection outside of a pool."""

import inspect
from collections.abc import Mapping
from typing import Any

import redis as sync_redis
import redis.asyncio as async_redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import SSLConnection as SyncSSLConnection
from redis.retry import Retry
from redis.sentinel import Sentinel as SyncSentinel
from redis.sentinel import SentinelConnectionPool as SyncSentinelConnectionPool

KNOWN_OPTIONS = set(inspect.signature(async_redis.Redis.__init__).parameters) - {"self", "connection_pool", "event_dispatcher"}

_SYNC_OPTIONS = set(inspect.signature(sync_redis.Redis.__init__).parameters) - {"self", "connection_pool", "event_dispatcher"}

_ONE_KIND_ONLY = {"retry", "redis_connect_func", "connection_pool"}


def sync_counterpart(client: Any, *, address: tuple[str, int] | None = None, **overrides: Any) -> sync_redis.Redis:
    """Make a synchronous client with the options of an asynchronous one.

    ``address`` is where a Sentinel-managed connection is connected to at present, when that is known.
    """
    pool = client.connection_pool
    options = _options_of(pool, SSLConnection)
    if isinstance(pool, SentinelConnectionPool):
        if address is None:
            return _sync_master(pool, overrides)
        options["host"], options["port"] = address
    return sync_redis.Redis(**{**sync_options(options), **overrides})


def async_counterpart(client: sync_redis.Redis) -> Any:
    """Make an asynchronous client with the options of a synchronous one."""
    pool = client.connection_pool
    if isinstance(pool, SyncSentinelConnectionPool):
        sentinels = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        manager = Sentinel([(kwargs["host"], kwargs["port"]) for kwargs in sentinels])  # type: ignore[no-untyped-call]
        return manager.master_for(pool.service_name, **_async_options(pool.connection_kwargs))
    return async_redis.Redis(**_async_options(_options_of(pool, SyncSSLConnection)))


def lone_connection(client: sync_redis.Redis, *, timeout: float) -> Any:
    """Make one connection like those of a synchronous client's pool, but outside of its count. It connects once, without trying again."""
    pool = client.connection_pool
    own: dict[str, Any] = {"socket_timeout": timeout, "retry": Retry(NoBackoff(), 0)}
    if "path" not in pool.connection_kwargs:
        own["socket_connect_timeout"] = timeout
    return pool.connection_class(**{**pool.connection_kwargs, **own})


def _options_of(pool: Any, ssl_class: type) -> dict[str, Any]:
    """Give the options of a pool's connections as keywords of a client."""
    options = dict(pool.connection_kwargs)
    if "path" in options:
        options["unix_socket_path"] = options.pop("path")
    elif issubclass(pool.connection_class, ssl_class):
        options["ssl"] = True
    return options


def _async_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in KNOWN_OPTIONS and name not in _ONE_KIND_ONLY}


def _sync_master(pool: SentinelConnectionPool, overrides: Mapping[str, Any]) -> sync_redis.Redis:
    sentinels = []
    for watcher in pool.sentinel_manager.sentinels:
        kwargs = watcher.connection_pool.connection_kwargs
        sentinels.append((kwargs["host"], kwargs["port"]))
    options = {**sync_options(pool.connection_kwargs), **overrides}
    master: sync_redis.Redis = SyncSentinel(sentinels).master_for(pool.service_name, **options)  # type: ignore[no-untyped-call]
    return master


def sync_options(options: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: value for name, value in options.items() if name in _SYNC_OPTIONS and name not in _ONE_KIND_ONLY}
    if isinstance(kept.get("retry_on_error"), list):
        kept["retry_on_error"] = list(kept["retry_on_error"])
    return kept
