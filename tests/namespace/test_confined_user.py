"""A user whose ACL is the namespace can do all that a namespace does, and nothing outside is ever seen, changed or counted."""

from collections.abc import Iterator

import pytest
import redis

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace import SyncNamespace

MARKER, SECRET = "outside", "marker"


@pytest.fixture
def confined(raw: "redis.Redis", redis_url: str) -> Iterator["redis.Redis"]:
    """A client whose user may touch nothing but the namespace's keys and channels."""
    raw.execute_command("ACL SETUSER", "tenant", "reset", "resetchannels", "on", ">secret", "~ns:*", "&ns:*", "+@all", "-@admin")
    raw.set(MARKER, SECRET)
    raw.rpush("outside:list", "1")
    raw.sadd("outsider", "1")
    with redis.Redis.from_url(redis_url, username="tenant", password="secret") as client:
        yield client
    raw.execute_command("ACL DELUSER", "tenant")


@pytest.fixture
def ns(confined: "redis.Redis") -> SyncNamespace:
    return SyncNamespace(confined, "ns")


def test_the_user_is_confined_indeed(confined):
    with pytest.raises(redis.exceptions.NoPermissionError):
        confined.get(MARKER)


def test_all_that_escapes_an_acl_stays_inside_a_namespace(ns, raw):
    ns.mset({"k1": 1, "k2": 2})
    ns.rpush("list", 1)

    assert sorted(ns.keys()) == [b"k1", b"k2", b"list"]
    assert ns.keys("outside*") == ns.keys("*marker*") == []
    assert sorted(ns.scan_iter()) == [b"k1", b"k2", b"list"]
    assert ns.scan(match="outs*")[1] == []
    assert ns.count() == 3
    for command in (
        "RANDOMKEY",
        "DBSIZE",
        "FLUSHDB",
        "FLUSHALL",
        "SWAPDB 0 1",
        "SELECT 1",
        "CLUSTER GETKEYSINSLOT 0 10",
        "SLOWLOG GET",
        "ACL LOG",
    ):
        with pytest.raises(UnsupportedCommand):
            ns.execute_command(*command.split())
    for command in ("GET", "DUMP", "TYPE", "OBJECT ENCODING", "STRLEN", "MEMORY USAGE"):
        assert ns.execute_command(*command.split(), MARKER) in (None, b"none", "none", 0)
    assert ns.clear() == 3
    assert raw.get(MARKER) == SECRET.encode()
    assert raw.dbsize() == 3


def test_a_script_cannot_leave_the_namespace_either(ns):
    with pytest.raises(redis.ResponseError):
        ns.eval(f"return redis.call('GET', '{MARKER}')", 0)
    with pytest.raises(redis.ResponseError):
        ns.eval("return redis.call('SET', ARGV[1], 'changed')", 0, MARKER)
    assert ns.eval("return redis.call('SET', KEYS[1], 'v')", 1, "k") == b"OK"


def test_moving_copying_and_storing_stay_inside(ns, raw):
    ns.rpush("list", "3", "1")
    ns.sort("list", store="sorted")
    ns.copy("list", "copied")
    ns.rename("copied", "outside")
    ns.sunionstore("union", "outsider", "nothing")
    ns.execute_command("RPOPLPUSH", "list", "outside:list")

    assert sorted(raw.scan_iter("ns:*")) == [b"ns:list", b"ns:outside", b"ns:outside:list", b"ns:sorted"]
    assert raw.get(MARKER) == SECRET.encode()
    assert raw.lrange("outside:list", 0, -1) == [b"1"]


def test_sort_does_not_look_outside_even_where_the_server_would_let_it(raw):
    raw.mset({"w_1": "outside", "ns:w_1": "inside"})
    ns = SyncNamespace(raw, "ns")
    ns.rpush("list", 1)

    assert ns.sort("list", by="nosort", get=["w_*"]) == [b"inside"]


def test_publishing_reaches_only_the_namespaces_channels(ns, raw):
    with raw.pubsub() as pubsub:
        pubsub.psubscribe("*")
        pubsub.get_message(timeout=2)
        ns.publish("news", "1")
        message = pubsub.get_message(timeout=2)

    assert message is not None
    assert message["channel"] == b"ns:news"


def test_pipelines_of_the_confined_user_work(ns):
    script = ns.register_script("return redis.call('INCR', KEYS[1])")
    with ns.pipeline() as pipe:
        pipe.watch("k")
        pipe.multi()
        pipe.set("k", 1)
        script(keys=["k"], client=pipe)
        assert pipe.execute() == [True, 2]
    with ns.lock("lock", timeout=5):
        assert ns.exists("lock")
