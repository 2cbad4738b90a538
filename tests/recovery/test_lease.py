"""One instance at a time holds the lease of a library, and it ends with its holder's connection."""

import pytest

from async_tracker.namespace import Namespace
from async_tracker.recovery.lease import Election, Lease, LeaseHolder, lease_holder, make_lease
from async_tracker.store.commands import Store
from async_tracker.store.observation import Connections


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
