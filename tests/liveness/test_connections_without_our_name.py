"""A server, or what stands before it, that does not show our connection as we named it: no evidence of anybody's death."""

import asyncio

import pytest

from async_tracker import InstanceState, Namespace
from tests.harness.resp import Command
from tests.harness.wait import wait_until, wait_until_sync

GRACE = 0.3
QUICK = {"heartbeat_interval": 0.5, "heartbeat_ttl": 15.0, "disconnect_grace": GRACE, "sweep_interval": 0.1}
NAMELESS = "worker on nopass ~* &* +@all -client|setname"


async def assert_nobody_dies(tracker, other) -> None:
    async with tracker.register() as one, other.register() as two:
        redis = Namespace(tracker.footing.access.client(), tracker.namespace)
        await wait_until(lambda: redis.exists("lease:sweep:asyncio-watch"), description="somebody sweeps")
        await asyncio.sleep(3 * GRACE)
        assert {found.instance_id: found.state for found in await tracker.instances()} == {
            one: InstanceState.ALIVE,
            two: InstanceState.ALIVE,
        }
        assert (tracker.instance_id, other.instance_id) == (one, two)


@pytest.mark.usefixtures("server_names_subcommands")
async def test_the_watchdog_speaks_also_for_a_user_that_may_not_name_its_connection(make_server, make_tracker):
    server = make_server(extra_args=("--user", *NAMELESS.split()))
    options = {"unix_socket_path": server.unix_socket_path, "username": "worker", "password": "any"}
    tracker = make_tracker(redis_options=options, **QUICK)
    async with tracker.register() as instance_id:
        with tracker.redis_sync() as redis:
            wait_until_sync(lambda: redis.zscore("watchdogs", instance_id), description="the watchdog speaks for the loop that this blocks")


@pytest.mark.usefixtures("server_names_subcommands")
async def test_a_user_that_may_not_name_its_connection_is_not_taken_for_dead(make_server, make_tracker):
    server = make_server(extra_args=("--user", *NAMELESS.split()))
    options = {"redis_options": {"unix_socket_path": server.unix_socket_path, "username": "worker", "password": "any"}, **QUICK}
    await assert_nobody_dies(make_tracker(**options), make_tracker(**options))


@pytest.mark.parametrize("shown", [b"", b"id=%d addr=127.0.0.1:1 name=somebody db=0\n"], ids=["hidden", "somebody else's"])
async def test_a_proxy_that_shares_its_connections_is_no_evidence_even_where_one_instance_is_behind_it(
    make_tracker, wire, redis_client, namespace, shown
):
    def is_question(command: Command) -> bool:
        return command[:2] == (b"CLIENT", b"LIST")

    rule = wire.reply_with_error("", to=is_question)
    line = shown % 7 if shown else shown
    rule.reply = b"$%d\r\n%s\r\n" % (len(line), line)
    tracker = make_tracker(redis_options={"url": wire.url}, **QUICK)
    async with tracker.register() as instance_id:
        await wait_until(lambda: redis_client.exists(f"{namespace}:lease:sweep:asyncio-watch"), description="it sweeps")
        await asyncio.sleep(3 * GRACE)
        assert [(found.instance_id, found.state) for found in await tracker.instances()] == [(instance_id, InstanceState.ALIVE)]
        assert tracker.instance_id == instance_id
