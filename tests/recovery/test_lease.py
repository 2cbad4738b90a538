"""One instance at a time holds the lease of a library, and it ends with its holder's connection."""

import pytest
import redis.asyncio

from async_tracker.namespace import Namespace
from async_tracker.recovery.lease import Election, Lease, LeaseHolder, lease_holder, make_lease
from async_tracker.store.commands import Store
from async_tracker.store.observation import Connections
from tests.harness.wait import wait_until


@pytest.fixture
def store(redis_client, namespace) -> Store:
    return Store(Namespace(redis_client, namespace))


def lease_of(store: Store, *, recovers: bool = True) -> Lease:
    return make_lease(store, library="arq", recovers=recovers, sweep_interval=0.5)


async def a_holder(redis_client, name: str, *, is_there: bool) -> LeaseHolder:
    """Name an instance with this client's own connection, or with one that is gone."""
    info = await redis_client.info("server")
    number = await redis_client.client_id() if is_there else 10**9
    return lease_holder(name, Connections(server=info["run_id"], ids={number: await redis_client.client_getname() or ""}))


async def test_one_of_two_holds_the_lease_until_it_gives_way(store, redis_client):
    first, second = lease_of(store), lease_of(store)
    one, other = [await a_holder(redis_client, name, is_there=True) for name in ("one", "other")]
    assert await first.elect(one) == await first.elect(one) == Election(is_ours=True, instances=0)
    assert not (await second.elect(other)).is_ours
    assert (first.is_held, second.is_held) == (True, False)
    await first.give_way()
    assert not first.is_held
    assert (await second.elect(other)).is_ours


async def test_the_lease_of_a_holder_whose_connection_is_gone_is_taken_over_at_once(store, redis_client):
    assert (await lease_of(store).elect(await a_holder(redis_client, "killed", is_there=False))).is_ours
    assert (await lease_of(store).elect(await a_holder(redis_client, "lives", is_there=True))).is_ours


async def test_who_resigns_names_the_lease_as_it_stands_in_redis_and_only_once(store, redis_client, namespace):
    lease = lease_of(store)
    assert lease.resign() is None
    await lease.elect(await a_holder(redis_client, "one", is_there=True))
    name, text = lease.resign()
    assert (await redis_client.get(f"{namespace}:lease:sweep:{name}")).decode() == text
    assert lease.resign() is None
    assert await store.release_lease(name, text)


async def test_those_that_recover_and_those_that_watch_have_a_lease_each(store, redis_client):
    holders = [await a_holder(redis_client, name, is_there=True) for name in ("recovers", "watches")]
    assert (await lease_of(store).elect(holders[0])).is_ours
    assert (await lease_of(store, recovers=False).elect(holders[1])).is_ours


async def commands_of(redis_client, work) -> dict[str, int]:
    """Count what the server does for some work, by name."""
    await redis_client.config_resetstat()
    await work()
    found = await redis_client.info("commandstats")
    return {name.removeprefix("cmdstat_"): counts["calls"] for name, counts in found.items()}


@pytest.mark.usefixtures("server_names_subcommands")
async def test_a_stand_by_looks_in_one_message_and_the_server_goes_through_its_clients_for_the_first_look_alone(make_server):
    """On a server of its own: the commands of other tests would be counted."""
    server = make_server()
    async with redis.asyncio.Redis.from_url(server.url, client_name="holder") as client:
        store = Store(Namespace(client, "n"))
        holder, standby = lease_of(store), lease_of(store)
        lives, other = await a_holder(client, "lives", is_there=True), await a_holder(client, "other", is_there=True)
        assert (await holder.elect(lives)).is_ours
        assert (await commands_of(client, lambda: standby.elect(other)))["client|list"] == 1
        used = await commands_of(client, lambda: standby.elect(other))
        assert ("client|list" not in used, used["client|tracking"], used["evalsha"]) == (True, 1, 1)


async def test_a_holder_that_was_seen_and_goes_loses_the_lease_at_the_next_look(store, redis_client, redis_url):
    standby, other = lease_of(store), await a_holder(redis_client, "other", is_there=True)
    async with redis.asyncio.Redis.from_url(redis_url, client_name="holder", single_connection_client=True) as gone:
        holder = await a_holder(gone, "killed", is_there=True)
        assert (await lease_of(store).elect(holder)).is_ours
        for _ in range(2):
            assert not (await standby.elect(other)).is_ours

    async def is_ours() -> bool:  # the server takes a moment to notice
        return (await standby.elect(other)).is_ours

    await wait_until(is_ours, description="the lease is taken over")


async def test_a_lease_that_has_gone_over_to_another_holder_is_not_judged_by_the_one_before(store, redis_client):
    """The stand-by has seen the first; the second, whose connection is gone, holds it by its next look."""
    first, standby = lease_of(store), lease_of(store)
    other = await a_holder(redis_client, "other", is_there=True)
    assert (await first.elect(await a_holder(redis_client, "first", is_there=True))).is_ours
    assert not (await standby.elect(other)).is_ours
    await first.give_way()
    assert (await lease_of(store).elect(await a_holder(redis_client, "second", is_there=False))).is_ours
    assert (await standby.elect(other)).is_ours


@pytest.mark.usefixtures("server_names_subcommands")
async def test_where_the_server_refuses_the_short_question_the_list_is_asked_for_at_every_look(store, redis_client, redis_url, namespace):
    user = f"{namespace}-lister"
    await redis_client.acl_setuser(user, enabled=True, nopass=True, keys=["*"], categories=["+@all"], commands=["-client|tracking"])
    try:
        async with redis.asyncio.Redis.from_url(redis_url, username=user, password="any") as refused:
            standby, other = lease_of(Store(Namespace(refused, namespace))), await a_holder(redis_client, "other", is_there=True)
            holder = await a_holder(redis_client, "lives", is_there=True)
            assert (await lease_of(store).elect(holder)).is_ours
            for _ in range(3):
                assert not (await standby.elect(other)).is_ours
            await lease_of(store).give_way()
            await redis_client.set(f"{namespace}:lease:sweep:arq", (await a_holder(redis_client, "killed", is_there=False)).text)
            assert (await standby.elect(other)).is_ours
    finally:
        await redis_client.acl_deluser(user)
