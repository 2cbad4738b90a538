"""The server that tests talk to: one that they started, or one that they were given and that is empty."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

import redis
import redis.asyncio
from redis.connection import parse_url


class Server(Protocol):
    """What a test may ask of either kind of server."""

    @property
    def url(self) -> str:
        """The url that redis-py and arq connect to."""

    @property
    def unix_socket_path(self) -> str | None:
        """The unix socket, or None where the server was given by a url without one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GivenServer:
    """A server that somebody else runs, named by ``--redis-url``: tests use one database of it, and only while that is empty."""

    url: str

    @property
    def unix_socket_path(self) -> str | None:
        """The unix socket that the url names, or None."""
        address = address_of(self.url)
        return address if isinstance(address, str) else None

    def refuse_unless_empty(self) -> None:
        """Raise RuntimeError where the database holds anything at all."""
        with redis.Redis.from_url(self.url) as client:
            key_count = client.dbsize()
        if key_count:
            raise RuntimeError(f"the database of --redis-url holds {key_count} keys; tests flush it, so give them an empty one")


def address_of(url: str) -> str | tuple[str, int]:
    """Return where the server of a url listens: the path of a unix socket, or a host and a port.

    >>> address_of("unix:///tmp/s?db=3"), address_of("redis://127.0.0.1:7000/3")
    ('/tmp/s', ('127.0.0.1', 7000))
    """
    options = parse_url(url)
    path: str | None = options.get("path")
    return path or (options.get("host", "localhost"), options.get("port", 6379))


def database_of(url: str) -> int:
    """Return the number of the database that a url names.

    >>> database_of("unix:///tmp/s?db=3"), database_of("redis://127.0.0.1:7000/3"), database_of("redis://localhost")
    (3, 3, 0)
    """
    number: int = parse_url(url).get("db", 0)
    return number


async def leaked_keys(client: redis.asyncio.Redis, namespace: str, *, allowed: Collection[str] = ()) -> list[str]:
    """Return the keys of the namespace that nobody will ever delete, without the prefix.

    A key is owned when it has a lifetime, when it is of all instances and there are any, or when it belongs to a registered instance
    or to a job in flight on one. ``allowed`` names keys that may stay for ever.
    """
    prefix = f"{namespace}:"
    names = [_text(key).removeprefix(prefix) async for key in client.scan_iter(match=_literal(prefix) + "*", count=1_000)]
    instances = [_text(member) for member in await client.zrange(f"{prefix}instances", 0, -1)]
    owned = {"instances", "connections", "gone", "watchdogs"} if instances else set()
    async with client.pipeline(transaction=False) as pipe:
        for instance_id in instances:
            owned |= {f"instance:{instance_id}", f"jobs:{instance_id}", f"counters:{instance_id}"}
            pipe.smembers(f"{prefix}jobs:{instance_id}")
        owned |= {f"job:{_text(job_id)}" for listed in await pipe.execute() for job_id in listed}
        suspects = [name for name in names if name not in owned | set(allowed)]
        for name in suspects:
            pipe.pttl(prefix + name)
        lifetimes = await pipe.execute()
    return sorted([name for name, lifetime in zip(suspects, lifetimes, strict=True) if lifetime == -1])


async def assert_no_leaks(client: redis.asyncio.Redis, namespace: str, *, allowed: Collection[str] = ()) -> None:
    """Fail where a key of the namespace has neither a lifetime nor an owner; see ``leaked_keys``."""
    leaked = await leaked_keys(client, namespace, allowed=allowed)
    assert not leaked, f"keys of namespace {namespace!r} without an owner and without a lifetime: {leaked}"


def _text(value: bytes | str) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def _literal(text: str) -> str:
    return "".join("\\" + character if character in "*?[]\\" else character for character in text)
