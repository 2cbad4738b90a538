"""A client of the other kind with the same options: synchronous for asynchronous, and back; and a lone connection outside of a pool."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

import redis as sync_redis
import redis.asyncio as async_redis
from redis.asyncio.connection import SSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.connection import SSLConnection as SyncSSLConnection
from redis.retry import Retry
from redis.sentinel import Sentinel as SyncSentinel
from redis.sentinel import SentinelConnectionPool as SyncSentinelConnectionPool

from async_tracker.connections.locator import located_client, locator_of
from async_tracker.connections.urls import KNOWN_OPTIONS
from async_tracker.errors import ConfigError

_SYNC_OPTIONS = set(inspect.signature(sync_redis.Redis.__init__).parameters) - {"self", "connection_pool", "event_dispatcher"}

_ONE_KIND_ONLY = {"redis_connect_func", "connection_pool"}


def sync_counterpart(client: Any, *, address: tuple[str, int] | None = None, **overrides: Any) -> sync_redis.Redis:
    """Make a synchronous client with the options of an asynchronous one.

    ``address`` is where a connection is connected to at present whose server is asked for, by Sentinel or in a cluster, when that is
    known: without it the other client asks as well.
    """
    pool, locator = client.connection_pool, locator_of(client)
    options = _options_of(pool, SSLConnection)
    if locator is not None:
        if address is None:
            located: sync_redis.Redis = located_client(locator, {**sync_options(options), **overrides}, sync=True)
            return located
        options["host"], options["port"] = address
    if isinstance(pool, SentinelConnectionPool):
        if address is None:
            return _sync_master(pool, overrides)
        options["host"], options["port"] = address
    return sync_redis.Redis(**{**sync_options(options), **overrides})


def async_counterpart(client: sync_redis.Redis) -> Any:
    """Make an asynchronous client with the options of a synchronous one. Raises ConfigError for one that would change what TLS checks."""
    pool, locator = client.connection_pool, locator_of(client)
    options = _async_options(_options_of(pool, SyncSSLConnection))
    if locator is not None:
        return located_client(locator, options)
    if not isinstance(pool, SyncSentinelConnectionPool):
        return async_redis.Redis(**options)
    watchers = [watcher.connection_pool for watcher in pool.sentinel_manager.sentinels]
    manager = Sentinel([])  # type: ignore[no-untyped-call]
    manager.sentinels = [async_redis.Redis(**_async_options(_options_of(watcher, SyncSSLConnection))) for watcher in watchers]
    return _managed(manager, pool, options)


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


def _sync_master(pool: SentinelConnectionPool, overrides: Mapping[str, Any]) -> sync_redis.Redis:
    watchers = [watcher.connection_pool for watcher in pool.sentinel_manager.sentinels]
    manager = SyncSentinel([])  # type: ignore[no-untyped-call]
    manager.sentinels = [sync_redis.Redis(**sync_options(_options_of(watcher, SSLConnection))) for watcher in watchers]
    master: sync_redis.Redis = _managed(manager, pool, {**sync_options(_options_of(pool, SSLConnection)), **overrides})
    return master


def _managed(manager: Any, pool: Any, options: Mapping[str, Any]) -> Any:
    """Make a client that this manager leads to the same service as it does ``pool``."""
    theirs = pool.sentinel_manager
    manager.min_other_sentinels = theirs.min_other_sentinels
    if hasattr(manager, "_force_master_ip"):
        manager._force_master_ip = getattr(theirs, "_force_master_ip", None)
    rest = {name: value for name, value in options.items() if name not in ("host", "port")}
    return (manager.master_for if pool.is_master else manager.slave_for)(pool.service_name, **rest)


def _async_options(options: Mapping[str, Any]) -> dict[str, Any]:
    return _known(options, KNOWN_OPTIONS, AsyncRetry, "redis.asyncio")


def sync_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Give the options that a synchronous client takes, out of those of an asynchronous one."""
    return _known(options, _SYNC_OPTIONS, Retry, "redis.Redis")


def _known(options: Mapping[str, Any], known: set[str], retry_class: Any, whose: str) -> dict[str, Any]:
    """Leave out what the other kind of client does not know. Raises ConfigError where that would change what TLS checks.

    >>> _known({"db": 1, "ssl_validate_ocsp": False}, {"db"}, Retry, "redis.asyncio")
    {'db': 1}
    >>> _known({"ssl_ca_path": "/etc/ssl"}, {"db"}, Retry, "redis.asyncio")
    Traceback (most recent call last):
    async_tracker.errors.ConfigError: redis.asyncio does not know the option ssl_ca_path of your client: make a client of that kind \
yourself, with ssl_ca_certs for example, and give it as redis=
    """
    for name, value in options.items():
        if name not in known and name.startswith("ssl") and value:
            raise ConfigError(
                f"{whose} does not know the option {name} of your client: make a client of that kind yourself, "
                "with ssl_ca_certs for example, and give it as redis="
            )
    kept = {name: value for name, value in options.items() if name in known and name not in _ONE_KIND_ONLY}
    if isinstance(kept.get("retry_on_error"), list):
        kept["retry_on_error"] = list(kept["retry_on_error"])
    if kept.get("retry") is not None:
        kept["retry"] = _retry(kept["retry"], retry_class)
    return kept


def _retry(retry: Any, retry_class: Any) -> Any:
    """Make a retry of the other kind that tries as often, as late, and after the same errors."""
    if isinstance(retry, retry_class):
        return copy.deepcopy(retry)
    return retry_class(copy.deepcopy(retry._backoff), retry._retries, tuple(retry._supported_errors))
