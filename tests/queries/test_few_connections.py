"""The connections of few instances are asked for each by itself, which costs a server of many clients less than its list of them."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import redis.asyncio

from async_tracker import Instance, InstanceState, Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.liveness.lookup import FEW_IDS
from benchmarks.queries import count_round_trips, named_connections, write_namespace


async def asked(admin: redis.asyncio.Redis, question: Callable[[], Awaitable[Any]]) -> tuple[tuple[int, int], Any]:
    """Ask, and tell how often it was asked for one connection by itself, and for the list."""
    await admin.config_resetstat()
    answer = await question()
    stats = await admin.info("commandstats")
    return (stats.get("cmdstat_client|tracking", {}).get("calls", 0), stats.get("cmdstat_client|list", {}).get("calls", 0)), answer


@pytest.mark.usefixtures("server_names_subcommands")
async def test_each_of_few_is_asked_for_by_itself_by_connections_of_our_own(make_server: Callable[..., EmbeddedServer]):
    server = make_server(tcp=True)
    with named_connections(server.url, FEW_IDS + 1) as connections:
        async with redis.asyncio.Redis.from_url(server.url) as admin, Tracker(namespace="n", redis_options={"url": server.url}) as own:
            await write_namespace(admin, "n", connections=connections, jobs_each=1)
            shared = Tracker(namespace="n", redis=admin)
            ids = [item.instance_id for item in await own.instances()]
            first = ids[0]

            async def one(tracker: Tracker) -> Instance:
                found = await tracker.instance(first)
                assert found is not None
                return found

            counts, found = await asked(admin, lambda: one(own))
            assert (counts, found.state) == ((1, 0), InstanceState.ALIVE)
            assert (await asked(admin, lambda: own.jobs(first)))[0] == (1, 0)
            assert (await asked(admin, own.instances))[0] == (0, 1), "of more than few the list is read"
            counts, known = await asked(admin, lambda: one(shared))
            assert (counts, known.state) == ((0, 1), found.state), "a connection of another owner is left as it is"

            (mine,) = found.connection_ids
            await admin.client_kill_filter(_id=str(mine))
            counts, gone = await asked(admin, lambda: one(own))
            assert counts == (1, 1), "that one is not there is read from the list"
            assert gone.state == (await one(shared)).state
            await admin.zadd("n:instances", {ids[1]: 1})
            assert (await asked(admin, lambda: own.instance(ids[1])))[0][0] == 0, "one that is late is judged as a sweep judges it"
            client = own.footing.access.client()
            assert await count_round_trips(client, lambda: own.instance(ids[2])) == 2


@pytest.mark.usefixtures("server_names_subcommands")
async def test_who_may_not_ask_so_is_answered_by_the_list(make_server: Callable[..., EmbeddedServer]):
    server = make_server(tcp=True)
    with named_connections(server.url, 2) as connections:
        async with redis.asyncio.Redis.from_url(server.url) as admin:
            await write_namespace(admin, "n", connections=connections, jobs_each=1)
            await admin.acl_setuser("asks", enabled=True, passwords=["+p"], keys=["*"], commands=["+@all", "-client|tracking"])
            url = f"redis://asks:p@127.0.0.1:{server.port}/0"
            async with Tracker(namespace="n", redis_options={"url": url}) as tracker:
                counts, found = await asked(admin, tracker.instances)
                assert ({item.state for item in found}, counts[1]) == ({InstanceState.ALIVE}, 1)
