"""Through a namespace on one database and without one on another, commands give the same replies and leave the same data."""

from collections.abc import Iterator
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from async_tracker.embedded import EmbeddedServer
from async_tracker.namespace import SyncNamespace

NAMESPACES = ["ns", "a*b", "{t}", "k", "né"]
EXAMPLES = 40

key = st.sampled_from(["k", "l", "{t}k", "ns:k", "k*", "", b"\xff", "STORE", 7])
value = st.sampled_from(["1", "2.5", "text", b"\x00\xff", "ns:k", "k"])
field = st.sampled_from(["f", "g", "ns:f"])
number = st.integers(-3, 4)


def command(name: str, *parts: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[Any, ...]]:
    """A command with one value of each part; a part that gives a list gives several arguments."""
    return st.tuples(*parts).map(
        lambda drawn: (*name.split(), *(x for part in drawn for x in (part if isinstance(part, list) else [part])))
    )


def some(part: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(part, min_size=1, max_size=3)


keys = some(key)
counted = some(key).map(lambda names: [len(names), *names])
pairs = st.lists(st.tuples(key, value), min_size=1, max_size=3).map(lambda items: [x for item in items for x in item])

COMMANDS = [
    *(
        command(name, key)
        for name in ("GET", "DEL", "TYPE", "TTL", "STRLEN", "LLEN", "SCARD", "ZCARD", "HGETALL", "LPOP", "INCR", "EXISTS", "PERSIST")
    ),
    *(
        command(name, key, value)
        for name in ("SET", "APPEND", "LPUSH", "RPUSH", "SADD", "SISMEMBER", "ZSCORE", "GETSET", "SETNX", "LPUSHX", "PFADD")
    ),
    *(command(name, keys) for name in ("DEL", "EXISTS", "MGET", "SUNION", "SINTER", "SDIFF", "UNLINK", "TOUCH", "PFCOUNT")),
    *(command(name, key, keys) for name in ("SUNIONSTORE", "SINTERSTORE", "SDIFFSTORE", "PFMERGE")),
    *(command(name, key, key) for name in ("RENAME", "RENAMENX", "RPOPLPUSH", "COPY")),
    *(command(name, pairs) for name in ("MSET", "MSETNX")),
    command("HSET", key, field, value),
    command("HGET", key, field),
    command("HINCRBY", key, field, number),
    command("ZADD", key, number, value),
    command("ZRANGE", key, number, number),
    command("LRANGE", key, number, number),
    command("LINSERT", key, st.sampled_from(["BEFORE", "AFTER"]), value, value),
    command("LMOVE", key, key, st.sampled_from(["LEFT", "RIGHT"]), st.sampled_from(["LEFT", "RIGHT"])),
    command("SMOVE", key, key, value),
    command("SETRANGE", key, st.integers(0, 5), value),
    command("BITOP AND", key, keys),
    command("BITCOUNT", key),
    command("ZUNIONSTORE", key, counted),
    command("ZINTERSTORE", key, counted),
    command("ZUNION", counted),
    command("SORT", key, st.just(["ALPHA"])),
    command("SORT", key, st.just(["ALPHA", "STORE"]), key),
    command("SORT", key, st.just(["BY", "nosort", "GET", "#"])),
    command("GEOADD", key, st.just([13.4, 52.5]), value),
    command("GEORADIUS", key, st.just([13.4, 52.5, 10, "km", "STORE"]), key),
    command("XADD", key, st.just("1-1"), field, value),
    command("XLEN", key),
    command("XREAD STREAMS", key, st.just("0")),
    command("XGROUP CREATE", key, field, st.just(["0", "MKSTREAM"])),
    command("OBJECT ENCODING", key),
    command("EXPIRE", key, st.just(1000)),
    command("BLPOP", keys, st.just("0.01")),
    command("EVAL", st.just("return redis.call('APPEND', KEYS[1], ARGV[1])"), st.just(1), key, value),
    command("EVAL", st.just("return #KEYS"), counted, value),
    command("KEYS", st.sampled_from(["*", "k*", "?", "[kl]", "{t}*"])),
    command("PING"),
    command("ECHO", value),
]


@pytest.fixture(scope="module")
def sides(server_binary: Any) -> Iterator[tuple["redis.Redis", "redis.Redis"]]:
    """Two clients: of the database with namespaces, and of the one without."""
    with EmbeddedServer(binary=server_binary) as server:
        clients = tuple(redis.Redis(unix_socket_path=server.unix_socket_path, db=db) for db in (0, 1))
        yield clients[0], clients[1]
        for client in clients:
            client.close()


@pytest.mark.parametrize("name", NAMESPACES)
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(commands=st.lists(st.one_of(COMMANDS), min_size=1, max_size=15))
def test_replies_and_data_are_the_same_with_and_without_a_namespace(sides, name, commands):
    with_namespace, without = sides
    for client in sides:
        client.flushdb()
    with_namespace.set("decoy", "decoy")
    ns = SyncNamespace(with_namespace, name)

    for args in commands:
        assert outcome(ns, args, ns) == outcome(without, args, ns)

    assert contents(with_namespace, f"{name}:".encode()) == contents(without, b"")
    assert with_namespace.get("decoy") == b"decoy"


@pytest.mark.parametrize("transaction", [True, False])
@settings(max_examples=EXAMPLES, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(commands=st.lists(st.one_of(COMMANDS), min_size=1, max_size=15))
def test_pipelines_are_the_same_with_and_without_a_namespace(sides, transaction, commands):
    for client in sides:
        client.flushdb()
    ns = SyncNamespace(sides[0], "ns")
    replies = []
    for client in (ns, sides[1]):
        pipe = client.pipeline(transaction=transaction)
        for args in commands:
            pipe.execute_command(*args)
        replies.append([timeless(args, plain(reply, ns)) for args, reply in zip(commands, pipe.execute(raise_on_error=False), strict=True)])

    assert replies[0] == replies[1]
    assert contents(sides[0], b"ns:") == contents(sides[1], b"")


def outcome(client: Any, args: tuple[Any, ...], ns: SyncNamespace) -> Any:
    try:
        return timeless(args, plain(client.execute_command(*args), ns))
    except redis.RedisError as exc:
        return plain(exc, ns)


def timeless(args: tuple[Any, ...], reply: Any) -> Any:
    """Take out how long a key still has: the two sides are asked one after the other."""
    return "some time" if args[0] == "TTL" and isinstance(reply, int) and reply > 0 else reply


def plain(reply: Any, ns: SyncNamespace) -> Any:
    """Make replies comparable: sets and KEYS have no order, and the server's own error texts name keys in full."""
    if isinstance(reply, Exception):
        return type(reply), str(reply).replace(f"{ns.namespace}:", "").split("(")[0]
    if isinstance(reply, list) and all(isinstance(item, bytes) for item in reply):
        return sorted(reply)
    return reply


def contents(client: "redis.Redis", prefix: bytes) -> dict[bytes, bytes | None]:
    """Dump what is under a prefix, keyed by the names without it."""
    names = [name for name in client.scan_iter() if name.startswith(prefix)]
    return {name.removeprefix(prefix): client.dump(name) for name in names}
