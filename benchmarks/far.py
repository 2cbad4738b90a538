"""A Redis that is some milliseconds away, without a proxy that would cost what is being measured: each reply is held back by the clock."""

import asyncio
import time
from typing import Any

import redis
from redis.asyncio.connection import Connection, UnixDomainSocketConnection

from benchmarks.medians import estimate

_PINGS = 50


def far(kind: type[Connection] | type[UnixDomainSocketConnection], seconds: float) -> type[Any]:
    """Give a connection class whose replies arrive no sooner than this long after what they answer was sent.

    Replies to commands that were sent together arrive together. Waiting for them costs a timer of the event loop for each message, in
    a worker that is tracked and in one that is not.
    """
    plain: Any = kind

    class Far(plain):  # type: ignore[misc]
        _arrives_at = 0.0

        async def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            self._arrives_at = time.monotonic() + seconds
            await super().send_packed_command(*args, **kwargs)

        async def read_response(self, *args: Any, **kwargs: Any) -> Any:
            reply = await super().read_response(*args, **kwargs)
            left = self._arrives_at - time.monotonic()
            if left > 0:
                await asyncio.sleep(left)
            return reply

    return Far


def far_class(url: str, seconds: float) -> type[Any]:
    """Give the class for a url: over TCP, or over a unix socket."""
    return far(UnixDomainSocketConnection if url.startswith("unix:") else Connection, seconds)


def far_thread_class(url: str, seconds: float) -> type[Any]:
    """Give the same for the connections of threads: one waits in its thread, others run on."""
    plain: Any = redis.UnixDomainSocketConnection if url.startswith("unix:") else redis.Connection

    class Far(plain):  # type: ignore[misc]
        _arrives_at = 0.0

        def send_packed_command(self, *args: Any, **kwargs: Any) -> None:
            self._arrives_at = time.monotonic() + seconds
            super().send_packed_command(*args, **kwargs)

        def read_response(self, *args: Any, **kwargs: Any) -> Any:
            reply = super().read_response(*args, **kwargs)
            left = self._arrives_at - time.monotonic()
            if left > 0:
                time.sleep(left)
            return reply

    return Far


def far_pool(url: str, seconds: float) -> redis.asyncio.ConnectionPool:
    """Give a pool of connections to a server that far away; 0: as near as it is."""
    kind = {"connection_class": far_class(url, seconds)} if seconds else {}
    return redis.asyncio.ConnectionPool.from_url(url, **kind)


def far_thread_pool(url: str, seconds: float) -> redis.ConnectionPool:
    """Give the same for threads."""
    kind = {"connection_class": far_thread_class(url, seconds)} if seconds else {}
    return redis.ConnectionPool.from_url(url, **kind)


def ping_ms(url: str, seconds: float) -> float:
    """Measure a PING over such a connection; the median of many."""
    with redis.Redis(connection_pool=far_thread_pool(url, seconds)) as client:
        client.ping()
        return estimate([_timed_ping(client) for _ in range(_PINGS)]).median


def _timed_ping(client: redis.Redis) -> float:
    began = time.perf_counter()
    client.ping()
    return (time.perf_counter() - began) * 1000.0
