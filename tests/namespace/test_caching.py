"""With client-side caching the cache knows keys by their full names: it is not stale, and not taken for another's."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from async_tracker.namespace import SyncNamespace
from async_tracker.namespace.naming import Naming
from async_tracker.namespace.rules import Rules
from tests.harness.wait import wait_until_sync


@pytest.fixture
def tcp_url(make_server) -> str:
    """A server of one's own on a port: over a unix socket redis-py does not cache."""
    url: str = make_server(tcp=True).tcp_url
    return url


@contextlib.contextmanager
def caching_client(url: str) -> Iterator[Any]:
    """Yield a client that caches, or None: redis-py does so from 6 on (5.3 fails or hangs), with a Redis that says it is 7.4 or newer."""
    if int(redis.__version__.split(".")[0]) < 6:
        yield None
        return
    try:
        client = redis.Redis.from_url(url, protocol=3, cache_config=redis.cache.CacheConfig())
        client.ping()
    except redis.ConnectionError as exc:
        if "client-side caching" not in str(exc):
            raise
        yield None
        return
    yield client
    client.close()


def test_a_cached_value_is_forgotten_when_its_key_changes(tcp_url):
    with caching_client(tcp_url) as client, redis.Redis.from_url(tcp_url) as raw:
        if client is None:
            return
        ns = SyncNamespace(client, "app")
        raw.mset({"k": "outside", "app:k": "1"})
        assert ns.get("k") == b"1"
        assert ns.get("k") == b"1"
        assert len(client.get_cache().collection) == 1

        raw.set("app:k", "2")

        wait_until_sync(lambda: ns.get("k") == b"2", timeout=5, description="the cache was told of the change")


def test_two_namespaces_do_not_share_what_is_cached(tcp_url):
    with caching_client(tcp_url) as client, redis.Redis.from_url(tcp_url) as raw:
        if client is None:
            return
        raw.mset({"a:k": "1", "b:k": "2"})

        for _ in range(2):
            assert SyncNamespace(client, "a").get("k") == b"1"
            assert SyncNamespace(client, "b").get("k") == b"2"
            assert SyncNamespace(client, "a").mget("k") == [b"1"]


@pytest.mark.parametrize(("keys", "written"), [(["k", b"l"], ["a:k", b"a:l"]), ("k", "a:k"), (("k",), ["a:k"])])
def test_the_keys_that_redis_py_names_for_its_cache_become_full_names(keys, written):
    assert Rules(Naming("a", str.encode)).rewritten_keys(keys) == written
