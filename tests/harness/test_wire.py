"""The proxy: each fault must be the one that it says, seen from a real client and a real server."""

import os
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from tests.harness.wait import wait_until, wait_until_sync
from tests.harness.wire import WireProxy


@pytest.fixture
def direct(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client


def through(wire: WireProxy, **options: object) -> redis.Redis:
    return redis.Redis.from_url(wire.url, retry=None, **options)


def names_on(direct: redis.Redis) -> set[str]:
    connections: Any = direct.client_list()
    return {connection["name"] for connection in connections}


def test_in_fair_weather_everything_passes_unchanged(wire: WireProxy):
    payload = os.urandom(300_000) + b"\r\n"
    with through(wire) as client:
        client.set("key", payload)
        with client.pipeline() as pipe:
            pipe.get("key").lrange("none", 0, -1).set("a", 1)
            assert pipe.execute() == [payload, [], True]


async def test_pubsub_passes(wire: WireProxy, redis_client: redis.asyncio.Redis):
    async with redis.asyncio.Redis.from_url(wire.url) as client, client.pubsub() as pubsub:
        await pubsub.subscribe("one", "two")
        for _ in range(2):
            await pubsub.get_message(timeout=5)
        await redis_client.publish("two", "hello")
        message = await pubsub.get_message(timeout=5)
        assert message is not None
        assert message["data"] == b"hello"


def test_resp3_passes(wire: WireProxy):
    with through(wire, protocol=3) as client:
        client.hset("hash", mapping={"a": "1"})
        assert client.hgetall("hash") == {b"a": b"1"}


def test_commands_are_counted_by_name(wire: WireProxy):
    with through(wire) as client:
        client.ping()
        wire.forget_commands()
        client.set("a", 1)
        client.get("a")
        client.get("a")
        assert wire.command_counts() == {"SET": 1, "GET": 2}
    assert wire.connection_count == 1


def test_a_delay_counts_once_each_way(wire: WireProxy):
    with through(wire) as client:
        client.ping()
        wire.delay(to_server=0.05, to_client=0.05)
        before = time.monotonic()
        client.ping()
        assert time.monotonic() - before >= 0.1


def test_a_delay_does_not_lower_throughput(wire: WireProxy):
    with through(wire) as client:
        client.ping()
        wire.delay(to_client=0.2)
        before = time.monotonic()
        with client.pipeline(transaction=False) as pipe:
            for _ in range(200):
                pipe.ping()
            assert len(pipe.execute()) == 200
        assert time.monotonic() - before < 200 * 0.2 / 4


def test_a_stalled_wire_keeps_everything_back_until_it_flows(wire: WireProxy, direct: redis.Redis):
    with through(wire) as client:
        connection = client.connection_pool.make_connection()
        connection.connect()
        wire.stall()
        connection.send_command("SET", "key", "value")
        assert not connection.can_read(timeout=0.1)
        assert direct.get("key") is None
        wire.flow()
        assert connection.read_response() == b"OK"
        assert direct.get("key") == b"value"
        connection.disconnect()


def test_a_cut_drops_the_connection_on_both_sides_and_a_new_one_is_accepted(wire: WireProxy, direct: redis.Redis):
    with through(wire, client_name="cut-me") as client:
        connection = client.connection_pool.make_connection()
        connection.connect()
        assert "cut-me" in names_on(direct)
        wire.cut()
        wait_until_sync(lambda: "cut-me" not in names_on(direct), description="the server dropped it")
        with pytest.raises(redis.ConnectionError):
            connection.read_response()
        assert client.ping()


def test_while_it_refuses_nobody_connects_and_afterwards_the_port_is_the_same(wire: WireProxy):
    with through(wire) as client:
        port = wire.port
        wire.refuse()
        with pytest.raises(redis.ConnectionError, match="refused"):
            client.ping()
        wire.accept()
        assert wire.port == port
        assert client.ping()


def test_a_client_that_leaves_is_gone_on_the_server_too(wire: WireProxy, direct: redis.Redis):
    with through(wire, client_name="leaver") as client:
        client.ping()
        assert "leaver" in names_on(direct)
    wait_until_sync(lambda: "leaver" not in names_on(direct), description="the server saw it leave")


def test_the_server_does_not_learn_that_a_lost_host_is_gone(wire: WireProxy, direct: redis.Redis):
    wire.lose_hosts()
    with through(wire, client_name="lost") as client:
        client.ping()
    with through(wire, client_name="second") as client:  # a full trip later than the first one's end
        client.ping()
    assert {"lost", "second"} <= names_on(direct)


def test_a_held_command_arrives_when_it_is_released(wire: WireProxy, direct: redis.Redis):
    held = wire.hold({"SET"})
    with through(wire) as client:
        connection = client.connection_pool.make_connection()
        connection.send_command("SET", "key", "late")
        held.wait_until_caught()
        assert not connection.can_read(timeout=0.1)
        assert direct.get("key") is None
        held.release()
        assert connection.read_response() == b"OK"
        assert client.get("key") == b"late"
        connection.disconnect()


def test_a_held_command_is_delivered_late_after_its_client_has_gone(wire: WireProxy, direct: redis.Redis):
    held = wire.hold({"SET"})
    with through(wire) as client:
        connection = client.connection_pool.make_connection()
        connection.send_command("SET", "key", "late")
        held.wait_until_caught()
        wire.cut_clients()
        with pytest.raises(redis.ConnectionError):
            connection.read_response()
        client.set("other", "on time")
        held.release()
        wait_until_sync(lambda: direct.get("key") == b"late", description="the held command arrived")


def test_a_client_that_leaves_by_itself_has_its_held_commands_delivered_too(wire: WireProxy, direct: redis.Redis):
    held = wire.hold({"SET"})
    with through(wire) as client:
        connection = client.connection_pool.make_connection()
        connection.send_command("SET", "key", "late")
        held.wait_until_caught()
        connection.disconnect()
        held.release()
        wait_until_sync(lambda: direct.get("key") == b"late", description="the held command arrived")


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", redis.exceptions.OutOfMemoryError),
        ("READONLY You can't write against a read only replica.", redis.exceptions.ReadOnlyError),
        ("LOADING Redis is loading the dataset in memory", redis.exceptions.BusyLoadingError),
        ("NOPERM this user has no permissions to run the 'set' command", redis.exceptions.NoPermissionError),
    ],
)
def test_an_injected_error_is_what_the_client_raises_and_the_server_sees_nothing(
    wire: WireProxy, direct: redis.Redis, error: str, raised: type[Exception]
):
    rule = wire.reply_with_error(error, to={"set"})
    with through(wire) as client:
        with pytest.raises(raised):
            client.set("key", "value")
        assert client.get("key") is None
        assert [command[:2] for command in rule.caught] == [(b"SET", b"key")]
        rule.remove()
        client.set("key", "value")
    assert direct.get("key") == b"value"


def test_an_injected_error_takes_its_place_among_the_replies_of_a_pipeline(wire: WireProxy):
    wire.reply_with_error("OOM no", to=lambda command: command[1:2] == (b"b",), times=1)
    with through(wire) as client, client.pipeline(transaction=False) as pipe:
        pipe.set("a", 1).set("b", 2).set("c", 3).get("c")
        replies = pipe.execute(raise_on_error=False)
        assert [type(reply) for reply in replies] == [bool, redis.exceptions.OutOfMemoryError, bool, bytes]
        assert client.set("b", 2)


async def test_it_can_be_used_from_the_loop_of_the_clients(wire: WireProxy, redis_client: redis.asyncio.Redis):
    retry = Retry(NoBackoff(), 1)  # the cut is seen only when the loop runs again
    async with redis.asyncio.Redis.from_url(wire.url, retry=retry, retry_on_error=[redis.ConnectionError]) as client:
        rule = wire.reply_with_error("READONLY no", to={"SET"})
        with pytest.raises(redis.exceptions.ReadOnlyError):
            await client.set("a", 1)
        await wait_until(lambda: rule.caught, description="the command was caught")
        wire.cut()
        assert await client.ping()


def test_over_a_server_that_is_down_every_connection_ends_at_once(make_server):
    server = make_server()
    with WireProxy(server.unix_socket_path) as wire, through(wire) as client:
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
