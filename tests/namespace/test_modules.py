"""JSON, time series and probabilistic types through a namespace, on a server that has them: the same replies, under the same names.

Collected only with ``--server-binary`` of a Redis Stack, whose modules lie in ``../lib``. Its commands do not say truly where their keys
are, so they are proven by what they do.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from async_tracker.embedded import EmbeddedServer
from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace import SyncNamespace
from async_tracker.namespace.rules import SHAPES

MODULES = ["rejson.so", "redistimeseries.so", "redisbloom.so"]
FAMILIES = ("JSON.", "TS.", "BF.", "CF.", "CMS.", "TOPK.", "TDIGEST.")

CALLS = [
    tuple(line.split())
    for line in """
    JSON.SET doc $ {"a":[1,2],"n":1,"s":"x","b":true,"o":{"k":1}}
    JSON.SET doc2 $ {"n":2}
    JSON.GET doc $.a
    JSON.MGET doc doc2 nothing $.n
    JSON.MSET m1 $ 1 m2 $ {"x":2}
    JSON.MERGE doc2 $ {"extra":1}
    JSON.ARRAPPEND doc $.a 3
    JSON.ARRINDEX doc $.a 2
    JSON.ARRINSERT doc $.a 0 0
    JSON.ARRLEN doc $.a
    JSON.ARRPOP doc $.a
    JSON.ARRTRIM doc $.a 0 1
    JSON.NUMINCRBY doc $.n 2
    JSON.NUMMULTBY doc $.n 2
    JSON.NUMPOWBY doc $.n 2
    JSON.OBJKEYS doc $.o
    JSON.OBJLEN doc $.o
    JSON.RESP doc $.o
    JSON.STRAPPEND doc $.s "y"
    JSON.STRLEN doc $.s
    JSON.TOGGLE doc $.b
    JSON.TYPE doc $.a
    JSON.DEBUG MEMORY doc
    JSON.DEBUG HELP
    JSON.CLEAR doc $.a
    JSON.FORGET doc $.s
    JSON.DEL m1
    TS.CREATE ts1 LABELS KEYS ts1
    TS.CREATE ts2
    TS.CREATE ts3
    TS.ADD ts1 1000 1
    TS.MADD ts1 2000 2 ts2 1000 5
    TS.INCRBY ts3 1 TIMESTAMP 3000
    TS.DECRBY ts3 1 TIMESTAMP 4000
    TS.ALTER ts1 RETENTION 100000
    TS.GET ts1
    TS.RANGE ts1 - +
    TS.REVRANGE ts1 - +
    TS.CREATERULE ts1 ts2 AGGREGATION avg 1000
    TS.DELETERULE ts1 ts2
    TS.DEL ts1 1000 1000
    BF.RESERVE bloom 0.01 100
    BF.ADD bloom a
    BF.MADD bloom a b
    BF.INSERT bloom2 CAPACITY 10 ITEMS a bloom
    BF.EXISTS bloom a
    BF.MEXISTS bloom a z
    BF.CARD bloom
    BF.INFO bloom
    BF.DEBUG bloom
    CF.RESERVE cuckoo 100
    CF.ADD cuckoo a
    CF.ADDNX cuckoo a
    CF.INSERT cuckoo ITEMS a b
    CF.INSERTNX cuckoo ITEMS c
    CF.COUNT cuckoo a
    CF.EXISTS cuckoo a
    CF.MEXISTS cuckoo a z
    CF.DEL cuckoo a
    CF.COMPACT cuckoo
    CF.INFO cuckoo
    CF.DEBUG cuckoo
    CMS.INITBYDIM cms1 100 5
    CMS.INITBYDIM cms2 100 5
    CMS.INITBYDIM cms3 100 5
    CMS.INITBYPROB cms4 0.01 0.01
    CMS.INCRBY cms1 a 1 cms1 2
    CMS.MERGE cms3 2 cms1 cms2 WEIGHTS 1 2
    CMS.QUERY cms3 a cms1
    CMS.INFO cms3
    TOPK.RESERVE topk 3 20 5 0.9
    TOPK.ADD topk a topk b
    TOPK.INCRBY topk a 3
    TOPK.COUNT topk a
    TOPK.QUERY topk a z
    TOPK.LIST topk WITHCOUNT
    TOPK.INFO topk
    TDIGEST.CREATE td1
    TDIGEST.CREATE td2
    TDIGEST.ADD td1 1 2 3
    TDIGEST.ADD td2 4
    TDIGEST.MERGE td3 2 td1 td2 COMPRESSION 100
    TDIGEST.BYRANK td3 0 1
    TDIGEST.BYREVRANK td3 0 1
    TDIGEST.CDF td3 2
    TDIGEST.MAX td3
    TDIGEST.MIN td3
    TDIGEST.QUANTILE td3 0.5
    TDIGEST.RANK td3 2
    TDIGEST.REVRANK td3 2
    TDIGEST.TRIMMED_MEAN td3 0.1 0.9
    TDIGEST.INFO td3
    TDIGEST.RESET td1
    """.strip().splitlines()
]
LAST = [("TS.INFO", "ts1")]
"""It names the keys of its rules and the chunk it is in; compared here only while there is no rule."""


@pytest.fixture(scope="module")
def sides(request: pytest.FixtureRequest) -> Iterator[tuple["redis.Redis", "redis.Redis"]]:
    """Two clients of a server with modules: of the database with a namespace, and of the one without."""
    binary = Path(request.config.getoption("--server-binary"))
    library = binary.parent.parent / "lib"
    load = [argument for module in MODULES for argument in ("--loadmodule", str(library / module))]
    with EmbeddedServer(binary=binary, extra_args=load) as server:
        clients = [redis.Redis(unix_socket_path=server.unix_socket_path, db=db) for db in (0, 1)]
        yield clients[0], clients[1]
        for client in clients:
            client.close()


@pytest.fixture
def both(sides: Any) -> tuple[SyncNamespace, "redis.Redis"]:
    for client in sides:
        client.flushdb()
    return SyncNamespace(sides[0], "ns"), sides[1]


def test_every_module_command_replies_and_writes_as_without_a_namespace(both, sides):
    ns, raw = both
    sides[0].set("doc", "outside")
    for call in [*CALLS, *LAST, *((f"{name}.SCANDUMP", key, "0") for name, key in (("BF", "bloom"), ("CF", "cuckoo")))]:
        assert ns.execute_command(*call) == raw.execute_command(*call), call

    assert {key.removeprefix(b"ns:") for key in sides[0].scan_iter("ns:*")} == set(raw.scan_iter())
    assert sides[0].get("doc") == b"outside"


def test_a_filter_is_dumped_and_loaded_in_the_namespace(both, sides):
    ns, _ = both
    for family, key in (("BF", "filter"), ("CF", "cuckoo")):
        ns.execute_command(f"{family}.ADD", key, "a")
        cursor = 0
        while True:
            cursor, data = ns.execute_command(f"{family}.SCANDUMP", key, cursor)
            if cursor == 0:
                break
            ns.execute_command(f"{family}.LOADCHUNK", f"{key}2", cursor, data)
        assert ns.execute_command(f"{family}.EXISTS", f"{key}2", "a") == 1
    assert all(key.startswith(b"ns:") for key in sides[0].scan_iter())


def test_every_module_command_of_the_server_is_tried_or_refused(both, sides):
    client = sides[1]
    names = [name.decode().upper() for name in client.execute_command(b"COMMAND", "LIST")]
    tried = {f"{call[0]} {call[1]}" if call[0] == "JSON.DEBUG" else call[0] for call in [*CALLS, *LAST]}
    tried |= {"BF.SCANDUMP", "BF.LOADCHUNK", "CF.SCANDUMP", "CF.LOADCHUNK"}

    assert {name for name in names if name in SHAPES and name.startswith(FAMILIES)} <= tried
    for name in names:
        if "." in name and name not in SHAPES and name != "JSON.DEBUG":
            with pytest.raises(UnsupportedCommand):
                both[0].execute_command(name, "k")


def test_redis_pys_own_objects_for_modules_are_confined(both, sides):
    ns, _ = both
    ns.json().set("doc", "$", {"a": 1})
    ns.ts().add("series", 1000, 1)
    ns.bf().add("bloom", "a")
    ns.cf().add("cuckoo", "a")
    ns.cms().initbydim("sketch", 10, 5)
    ns.topk().reserve("top", 3, 20, 5, 0.9)
    ns.tdigest().create("digest")
    pipe = ns.pipeline()
    pipe.json().set("queued", "$", {"b": 2})
    pipe.json().get("doc", "$.a")
    pipe.execute()

    names = {b"doc", b"series", b"bloom", b"cuckoo", b"sketch", b"top", b"digest", b"queued"}
    assert set(ns.scan_iter()) == names
    assert set(sides[0].scan_iter()) == {b"ns:" + name for name in names}
