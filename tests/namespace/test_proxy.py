"""A client in a namespace: what it writes, what it gives back, and what it does not have."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import redis
import redis.asyncio

from async_tracker.errors import ConfigError, UnsupportedCommand
from async_tracker.namespace import Namespace, SyncNamespace

NAMES_WITH_MEANING = ["a*b", "we[i]rd?", "back\\slash", "unié", "{tag}", "a b", "a:b", "x->y", "^$.|()", "app"]
DECOYS = ["app", "appx:k", "aXXb:k", "weird1:k", "tag:k", "a:k", "other", "app2:app:k", "backslash:k", "k"]

MakeClient = Callable[..., "redis.asyncio.Redis"]


@pytest.fixture
async def make_client(redis_url: str) -> AsyncIterator[MakeClient]:
    clients: list[redis.asyncio.Redis] = []

    def make(**options: Any) -> "redis.asyncio.Redis":
        clients.append(redis.asyncio.Redis.from_url(redis_url, **options))
        return clients[-1]

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture(params=[{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 3, "decode_responses": True}], ids=str)
def client(request: pytest.FixtureRequest, make_client: MakeClient) -> "redis.asyncio.Redis":
    made: redis.asyncio.Redis = make_client(**request.param)
    return made


def text(reply: Any) -> Any:
    """Read a reply without regard to whether the client decodes, or gives lists or tuples."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, (list, tuple)):
        return [text(item) for item in reply]
    if isinstance(reply, dict):
        return {text(name): text(value) for name, value in reply.items()}
    return reply


@pytest.mark.parametrize(
    ("key", "written"),
    [("k", b"app:k"), (b"\xff\x00", b"app:\xff\x00"), (7, b"app:7"), (1.5, b"app:1.5"), ("", b"app:"), ("app:k", b"app:app:k")],
)
async def test_a_key_of_any_kind_is_written_behind_the_prefix(redis_client, raw, key, written):
    ns = Namespace(redis_client, "app")

    await ns.set(key, "value")

    assert raw.keys() == [written]
    assert await ns.get(key) == b"value"
    assert ns.full_key(key) == written


@pytest.mark.parametrize("key", [None, True, ["k"]])
async def test_what_redis_py_takes_for_no_key_is_refused_as_redis_py_does(redis_client, key):
    with pytest.raises(redis.DataError):
        await Namespace(redis_client, "app").set(key, "value")


@pytest.mark.parametrize("name", NAMES_WITH_MEANING)
async def test_characters_that_mean_something_elsewhere_mean_nothing_in_a_namespace(client, raw, name):
    for decoy in DECOYS:
        raw.set(decoy, "decoy")
    ns = Namespace(client, name)
    await ns.mset({"k1": 1, "k2": 2, "other": 3})

    assert sorted(text(await ns.keys())) == ["k1", "k2", "other"]
    assert sorted(text(await ns.keys("k*"))) == ["k1", "k2"]
    assert sorted([text(key) async for key in ns.scan_iter("k?")]) == ["k1", "k2"]
    assert await ns.count() == 3
    assert await ns.clear() == 3
    assert sorted(raw.keys()) == sorted(decoy.encode() for decoy in DECOYS)


async def test_replies_come_back_without_the_namespace(client):
    ns = Namespace(client, "app")
    await ns.rpush("list", "app:1", "2", "3", "4", "5")
    await ns.zadd("zset", {"app:m": 1, "b": 2, "c": 3, "d": 4})
    await ns.xadd("stream", {"app:field": "app:value"}, id="1-1")
    await ns.xgroup_create("stream", "group", id="0")

    assert text(await ns.blpop(["nothing", "list"], 1)) == ["list", "app:1"]
    assert text(await ns.brpop("list", 1)) == ["list", "5"]
    assert text(await ns.bzpopmin("zset", 1))[:2] == ["zset", "app:m"]
    assert text(await ns.bzpopmax(["zset"], 1))[:2] == ["zset", "d"]
    entries = [["1-1", {"app:field": "app:value"}]]
    for reply in (await ns.xread({"stream": "0"}), await ns.xreadgroup("group", "me", {"stream": ">"})):
        read = text(reply)
        found = dict(read) if isinstance(read, list) else read
        assert list(found) == ["stream"]
        assert found["stream"] in (entries, [entries])
    assert text(await ns.execute_command("OBJECT", "ENCODING", "list")) == text(await ns.object("encoding", "list"))
    assert await ns.blpop("nothing", 0.01) is None


async def test_pops_from_several_keys_tell_the_key_without_the_namespace(client, oracle):
    if "LMPOP" not in oracle.commands:  # Redis 6.2 has none of them
        return
    ns = Namespace(client, "app")
    await ns.rpush("list", "1", "2")
    await ns.zadd("zset", {"a": 1, "b": 2})

    assert text(await ns.lmpop(2, "nothing", "list", direction="LEFT")) == ["list", ["1"]]
    assert text(await ns.blmpop(1, 1, "list", direction="LEFT")) == ["list", ["2"]]
    assert text(await ns.zmpop(1, ["zset"], min=True))[0] == "zset"
    assert text(await ns.bzmpop(1, 1, ["zset"], min=True))[0] == "zset"


async def test_what_a_script_returns_is_opaque(client):
    ns = Namespace(client, "app")
    await ns.set("k", "app:value")
    script = ns.register_script("return {KEYS[1], redis.call('GET', KEYS[1])}")

    assert text(await script(keys=["k"])) == ["app:k", "app:value"]
    assert text(await ns.eval("return {KEYS[1], ARGV[1]}", 1, "k", "app:argument")) == ["app:k", "app:argument"]


async def test_options_of_redis_py_ride_along(make_client):
    ns = Namespace(make_client(decode_responses=True), "app")
    await ns.set(b"k", b"v")

    assert await ns.execute_command("GET", b"k", NEVER_DECODE=True) == await ns.redis.execute_command("GET", "app:k", NEVER_DECODE=True)
    assert await ns.execute_command("GET", b"nothing", EMPTY_RESPONSE="empty") is None


@pytest.mark.parametrize("spelling", [("get", "k"), (b"GET", "k"), ("GET k",), (b"get k",), ("gEt", b"k"), ("getrange k 0 -1",)])
async def test_a_command_may_be_spelled_as_redis_py_lets_it_be_spelled(redis_client, spelling):
    ns = Namespace(redis_client, "app")
    await ns.set("k", "v")

    assert await ns.execute_command(*spelling) == b"v"


@pytest.mark.parametrize("spelling", [("XINFO STREAM", "s"), ("XINFO", "STREAM", "s"), ("xinfo", b"stream", "s"), (b"XINFO STREAM", "s")])
async def test_a_subcommand_may_be_spelled_in_one_word_or_two(redis_client, spelling):
    ns = Namespace(redis_client, "app")
    await ns.xadd("s", {"a": 1})

    assert b"length" in text_keys(await ns.execute_command(*spelling))


def text_keys(reply: Any) -> list[bytes]:
    return [name.encode() if isinstance(name, str) else name for name in reply]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8"])
async def test_other_encodings_are_used_for_the_prefix_too(make_client, raw, encoding):
    ns = Namespace(make_client(encoding=encoding, decode_responses=True), "né")

    await ns.set("é", "v")

    assert raw.keys() == ["né:é".encode(encoding)]
    assert await ns.keys() == ["é"]


async def test_an_encoding_that_does_not_extend_ascii_is_a_config_error(make_client):
    with pytest.raises(ConfigError, match="ASCII"):
        Namespace(make_client(encoding="utf-16"), "app")


@pytest.mark.parametrize("name", ["", "a\nb", "\x00", "a\x7f", b"bytes", None])
async def test_a_namespace_that_cannot_be_is_a_config_error(redis_client, name):
    with pytest.raises(ConfigError):
        Namespace(redis_client, name)


async def test_namespaces_in_namespaces_are_one_with_both_names(redis_client, raw):
    ns = Namespace(Namespace(redis_client, "a"), "b")

    await ns.set("k", "v")

    assert raw.keys() == [b"a:b:k"]
    assert ns.namespace == "a:b"
    assert ns.redis is redis_client


async def test_closing_a_namespace_leaves_a_shared_client_open(redis_client):
    async with Namespace(redis_client, "app") as ns:
        connection_id = await ns.client_id()
    await ns.aclose(close_connection_pool=True)

    assert await redis_client.client_id() == connection_id


async def test_closing_a_namespace_that_owns_its_client_closes_it(make_client):
    client = make_client()
    ns = Namespace(client, "app", close_client=True)
    connection_id = await ns.client_id()

    await ns.aclose()

    assert await client.client_id() != connection_id


async def test_a_namespace_says_what_it_is(redis_client):
    assert repr(Namespace(redis_client, "app")) == f"Namespace({redis_client!r}, 'app')"


async def test_a_client_of_the_other_kind_is_a_config_error(redis_client, raw):
    with pytest.raises(ConfigError, match="SyncNamespace"):
        Namespace(raw, "app")
    with pytest.raises(ConfigError, match="use Namespace"):
        SyncNamespace(redis_client, "app")


async def test_a_single_connection_client_keeps_its_connection(redis_client, raw):
    async with Namespace(redis_client, "app").client() as ns:
        await ns.set("k", "v")
        first = await ns.client_id()
        assert await ns.client_id() == first
    assert raw.keys() == [b"app:k"]


async def test_methods_that_a_subclass_adds_are_bound_to_the_namespace(redis_url, raw):
    class Greeting(redis.asyncio.Redis):
        def __init__(self, *args: Any, greeting: str = "hello", **options: Any) -> None:
            super().__init__(*args, **options)
            self.greeting = greeting

        @property
        def loud(self) -> str:
            return self.greeting.upper()

        async def greet(self, name: str) -> Any:
            async with self.pipeline() as pipe:
                pipe.set(name, self.greeting)
                pipe.get(name)
                return await pipe.execute()

        async def get(self, name: Any) -> Any:
            return (b"got", await super().get(name))

    client = Greeting.from_url(redis_url)
    ns: Any = Namespace(client, "app")

    assert await ns.greet("you") == [True, b"hello"]
    assert await ns.get("you") == (b"got", b"hello")
    assert ns.loud == "HELLO"
    assert raw.keys() == [b"app:you"]
    assert isinstance(ns, Greeting)
    await client.aclose()


@pytest.mark.parametrize("name", ["connection", "_single_conn_lock", "parse_response", "from_pool", "no_such_thing", "response_callbacks"])
async def test_what_is_not_confined_is_not_there(redis_client, name):
    with pytest.raises(AttributeError, match=name):
        getattr(Namespace(redis_client, "app"), name)


async def test_a_method_of_a_subclass_that_would_go_past_the_namespace_fails(redis_url, raw):
    class Sneaky(redis.asyncio.Redis):
        async def sneak(self) -> Any:
            return await super().execute_command("SET", "k", "v")

    client = Sneaky.from_url(redis_url)
    ns: Any = Namespace(client, "app")
    with pytest.raises(AttributeError):
        await ns.sneak()
    assert raw.keys() == []
    await client.aclose()


async def test_a_lock_is_in_the_namespace(redis_client, raw):
    ns = Namespace(redis_client, "app")

    async with ns.lock("lock", timeout=5) as lock:
        assert raw.keys() == [b"app:lock"]
        assert await lock.locked()
        assert await lock.owned()
        await lock.extend(5)
        assert not await ns.lock("lock", blocking=False).acquire()
    assert raw.keys() == []


async def test_client_tracking_of_everything_is_of_the_namespace_only(make_client):
    ns = Namespace(make_client(single_connection_client=True, protocol=3), "app")

    await ns.execute_command("CLIENT TRACKING", "ON", "BCAST")

    info = text(await ns.execute_command("CLIENT TRACKINGINFO"))
    assert (dict(zip(info[::2], info[1::2], strict=True)) if isinstance(info, list) else info)["prefixes"] == ["app:"]


async def test_sort_follows_patterns_in_the_namespace(redis_client, raw):
    raw.mset({"w_a": 3, "w_b": 1, "app:w_a": 1, "app:w_b": 2})
    ns = Namespace(redis_client, "app")
    await ns.rpush("list", "b", "a")

    assert await ns.sort("list", by="w_*", get=["#", "w_*"]) == [b"a", b"1", b"b", b"2"]
    assert await ns.sort("list", by="nosort", store="sorted") == 2
    assert await ns.lrange("sorted", 0, -1) == [b"b", b"a"]
    assert raw.exists("app:sorted")


async def test_sort_by_a_pattern_is_refused_where_the_namespace_holds_a_star(redis_client):
    ns = Namespace(redis_client, "a*b")
    await ns.rpush("list", "2", "1")

    assert await ns.sort("list") == [b"1", b"2"]
    with pytest.raises(UnsupportedCommand, match="without '\\*'"):
        await ns.sort("list", by="w_*")


async def test_patterns_of_members_and_fields_are_left_alone(client):
    ns = Namespace(client, "app")
    await ns.hset("h", mapping={"field": 1, "other": 2})
    await ns.sadd("s", "member", "other")
    await ns.zadd("z", {"member": 1, "other": 2})

    assert text(await ns.hscan("h", match="f*"))[1] == {"field": "1"}
    assert text(await ns.sscan("s", match="m*"))[1] == ["member"]
    assert [pair[0] for pair in text(await ns.zscan("z", match="m*"))[1]] == ["member"]
    assert [text(key) async for key in ns.sscan_iter("s", match="m*")] == ["member"]


async def test_functions_get_the_keys_of_the_namespace(redis_client, raw, oracle):
    if "FCALL" not in oracle.commands:  # Redis 6.2 has none
        return
    ns = Namespace(redis_client, "app")
    code = "redis.register_function('put', function(keys, args) return {redis.call('SET', keys[1], args[1]), keys[1]} end)"
    assert await ns.function_load(f"#!lua name=test_of_namespace\n{code}") == b"test_of_namespace"

    assert await ns.fcall("put", 1, "k", "v") == [b"OK", b"app:k"]
    async with ns.pipeline() as pipe:
        assert await pipe.fcall("put", 1, "queued", "v").execute() == [[b"OK", b"app:queued"]]
    assert sorted(raw.keys()) == [b"app:k", b"app:queued"]
    assert await ns.function_delete("test_of_namespace")
