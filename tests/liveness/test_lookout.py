"""A look of the sweeper reads what has changed; whoever may be gone is seen gone in the same look, whatever the counters say."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
import redis.asyncio

from async_tracker import StorageUnavailable
from async_tracker.liveness import roll as roll_module
from async_tracker.liveness.lookout import Lookout, Sighting
from async_tracker.liveness.presence import Presence
from async_tracker.liveness.roll import Roll
from async_tracker.namespace import Namespace
from async_tracker.policy import Connection, Limits
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections
from async_tracker.store.reading import Reading
from async_tracker.store.writes import Beat, Status
from tests.harness.wait import wait_until

DESCRIPTION = Description(library="asyncio", host="h", host_id="0f", pid=7, queue="mail")


class Fleet:
    """Instances with a named connection each, without a worker behind them."""

    def __init__(self, url: str, store: Store, stack: AsyncExitStack) -> None:
        self.url = url
        self.store = store
        self._stack = stack
        self.clients: dict[str, Any] = {}

    async def join(self, name: str) -> None:
        mark = f"async-tracker:{secrets.token_hex(6)}"
        client = redis.asyncio.Redis.from_url(self.url, client_name=mark, single_connection_client=True)
        self.clients[name] = await self._stack.enter_async_context(client)
        info = await client.info("server")
        connections = Connections(server=info["run_id"], ids={await client.client_id(): mark})
        fields = {**encode_description(DESCRIPTION, Limits()), "state": "alive"}
        assert (await self.store.register(name, 1, connections.encode(), fields)).status is Status.WRITTEN

    async def die(self, name: str) -> None:
        """End as a killed process does: its connection is closed by the kernel."""
        number = await self.clients[name].client_id()
        await self.clients[name].connection.disconnect()

        async def is_gone() -> bool:
            return not await self.store.redis.redis.execute_command("CLIENT", "LIST", "ID", str(number))

        await wait_until(is_gone, description="the server has dropped the connection")


@pytest.fixture
async def fleet(make_server, namespace) -> AsyncIterator[Fleet]:
    """On a server of its own: the connections of other tests would move its counters."""
    url = make_server().url
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(redis.asyncio.Redis.from_url(url))
        found = Fleet(url, Store(Namespace(client, namespace)), stack)
        for number in range(8):
            await found.join(f"w{number}")
        yield found


def lookout_of(fleet: Fleet) -> Lookout:
    redis = fleet.store.redis
    return Lookout(redis=redis, reading=Reading(redis), presence=Presence(), library="asyncio", sweep_interval=0.5)


async def run_id_of(fleet: Fleet) -> str:
    found: str = (await fleet.store.redis.redis.info("server"))["run_id"]
    return found


def gone_in(sighting: Sighting) -> set[str]:
    return {name for name, state in sighting.evidence.states.items() if state is Connection.GONE}


@pytest.fixture
def share_of_one(monkeypatch):
    """Ask for a sixth of a small fleet at each look, as of a large one."""
    monkeypatch.setattr(roll_module, "LEAST_SHARE", 1)


async def commands(fleet: Fleet) -> dict[str, int]:
    found = await fleet.store.redis.redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): counts["calls"] for name, counts in found.items()}


@pytest.mark.usefixtures("share_of_one", "server_names_subcommands")
async def test_at_rest_a_look_asks_for_a_share_of_the_fleet_and_reads_of_no_instance(fleet: Fleet):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    first = await lookout.look(run_id)
    assert (first.instances, len(lookout.roll), gone_in(first)) == (8, 8, set())
    await fleet.store.redis.zremrangebyscore(keys.CHANGED, "-inf", "+inf")  # as a minute later
    await lookout.look(run_id)
    await fleet.store.redis.redis.config_resetstat()
    await lookout.look(run_id)  # after the reset it asks for all
    before = await commands(fleet)
    sighting = await lookout.look(run_id)
    after = await commands(fleet)
    used = {name: after[name] - before.get(name, 0) for name in after if after[name] != before.get(name, 0)}
    assert sighting.evidence.observation.instances == {}
    assert used["client|list"] == used["evalsha"] == 1
    assert "hget" not in used or used["hget"] <= 1  # the note of the server


@pytest.mark.usefixtures("share_of_one")
async def test_who_dies_is_seen_gone_at_the_next_look(fleet: Fleet):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    await lookout.look(run_id)
    await fleet.die("w5")
    assert gone_in(await lookout.look(run_id)) == {"w5"}


@pytest.mark.usefixtures("share_of_one")
async def test_a_death_that_hides_behind_a_reset_of_the_statistics_is_seen_in_the_same_look(fleet: Fleet):
    """As many connections as there were before come in the same half of a second: so fewer seem to have been closed than before.

    The one that dies is none of the share that is asked for anyway.
    """
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    for _ in range(3):
        await lookout.look(run_id)
    client = fleet.store.redis.redis
    received = (await client.info("stats"))["total_connections_received"]
    await fleet.die("w0")
    await client.config_resetstat()
    async with AsyncExitStack() as stack:
        for _ in range(received):
            other = redis.asyncio.Redis.from_url(fleet.url, single_connection_client=True)
            await (await stack.enter_async_context(other)).ping()
        assert gone_in(await lookout.look(run_id)) == {"w0"}


@pytest.mark.usefixtures("share_of_one")
async def test_a_death_that_no_counter_tells_of_is_found_within_six_looks(fleet: Fleet, monkeypatch):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    await fleet.die("w5")
    monkeypatch.setattr("async_tracker.liveness.lookout.may_have_closed", lambda before, now: False)
    seen = [gone_in(await lookout.look(run_id)) for _ in range(roll_module.LOOKS_A_ROUND)]
    assert {"w5"} in seen


@pytest.mark.usefixtures("share_of_one")
async def test_on_a_server_that_does_not_tell_its_counters_all_are_asked_for_at_every_look(fleet: Fleet):
    client = fleet.store.redis.redis
    await client.execute_command("ACL", "SETUSER", "closed", "on", "nopass", "~*", "+@all", "-info")
    run_id = await run_id_of(fleet)
    async with redis.asyncio.Redis.from_url(fleet.url, username="closed", password="any") as confined:
        proxy = Namespace(confined, fleet.store.redis.namespace)
        lookout = Lookout(redis=proxy, reading=Reading(proxy), presence=Presence(), library="asyncio", sweep_interval=0.5)
        await lookout.look(run_id)
        await fleet.die("w5")
        assert gone_in(await lookout.look(run_id)) == {"w5"}


@pytest.mark.usefixtures("share_of_one")
async def test_a_look_that_is_broken_off_loses_no_death(fleet: Fleet, monkeypatch):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    await lookout.look(run_id)
    await fleet.die("w5")

    async def fails(self, names, run_id):
        raise StorageUnavailable("Redis cannot be reached")

    with monkeypatch.context() as broken:
        broken.setattr(Lookout, "_ask_for", fails)
        with pytest.raises(StorageUnavailable):
            await lookout.look(run_id)
    assert gone_in(await lookout.look(run_id)) == {"w5"}


async def test_who_comes_changes_connection_or_leaves_is_noticed_without_reading_the_others(fleet: Fleet):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    await fleet.join("w8")
    other = Connections(server=run_id, ids={10**9: "async-tracker:new"}).encode()
    assert (await fleet.store.beat("w1", Beat(sequence=5, connections=other, fields={"busy": 0}))).status is Status.WRITTEN
    sighting = await lookout.look(run_id)
    assert (sighting.instances, gone_in(sighting)) == (9, {"w1"})
    assert lookout.roll.connections["w1"].encode() == other
    await fleet.store.redis.zrem(keys.INSTANCES, "w2")  # as an instance of an older version leaves: without a word in `changed`
    await lookout.look(run_id)
    assert "w2" not in lookout.roll
    assert len(lookout.roll) == 8


async def test_one_of_an_older_version_that_comes_back_with_another_connection_is_not_taken_for_gone(fleet: Fleet):
    """It writes its connections and not that they have changed; its old one is closed."""
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    await fleet.die("w3")
    back = await fleet.clients["w4"].client_id()
    mark = await fleet.clients["w4"].client_getname()
    name = mark.decode() if isinstance(mark, bytes) else mark
    await fleet.store.redis.hset(keys.CONNECTIONS, "w3", Connections(server=run_id, ids={back: name}).encode())
    await fleet.store.redis.hdel(keys.CONNECTIONS, "w4")  # so that it is not shared
    await fleet.store.redis.zrem(keys.CHANGED, "w3", "w4")
    assert "w3" not in gone_in(await lookout.look(run_id))


@pytest.mark.parametrize("spoilt", ["a list of changes that is none", "a clock that was set back", "a minute without a look"])
async def test_where_changes_may_be_missing_a_look_begins_with_everything(fleet: Fleet, spoilt: str):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    other = Connections(server=run_id, ids={10**9: "async-tracker:new"}).encode()
    await fleet.store.redis.hset(keys.CONNECTIONS, "w1", other)
    if spoilt.startswith("a list"):
        await fleet.store.redis.redis.set(fleet.store.redis.full_key(keys.CHANGED), "not ours")
    else:
        lookout._looked_at_ms += 3_600_000 if spoilt.startswith("a clock") else -3_600_000
    assert gone_in(await lookout.look(run_id)) == {"w1"}


def filled(count: int) -> Roll:
    roll = Roll()
    for number in range(count):
        roll.note(f"w{number:05}", Connections(server="5f", ids={number: "n"}))
    return roll


@pytest.mark.parametrize("count", [10, 1_000, 3_000, 10_000])
@pytest.mark.parametrize("looks_a_second", [2.0, 10.0, 0.1])
def test_after_a_disconnect_all_are_asked_for_in_that_look_or_within_a_second(count: int, looks_a_second: float):
    roll = filled(count)
    asked = roll.next_share(looks_a_second=looks_a_second)
    assert len(asked) == min(count, max(200, -(-count // 6)))
    asked += roll.after_a_disconnect(asked=len(asked), looks_a_second=looks_a_second)
    looks = 1
    while roll.owed:
        asked += roll.next_share(looks_a_second=looks_a_second)
        looks += 1
    assert set(asked) == set(roll.connections)
    assert looks <= (1 if count <= 3_000 else max(1, int(looks_a_second)))


def test_connections_that_several_report_are_shared_until_one_of_them_leaves():
    roll = filled(3)
    both = Connections(server="5f", ids={1: "n"})
    roll.note("w00002", both)
    assert roll.shared([both]) == {("5f", 1)}
    roll.leave("w00001")
    assert roll.shared([both]) == set()


async def test_one_that_dies_between_what_has_changed_and_the_closer_look_is_among_the_dead_with_what_it_said(fleet: Fleet, monkeypatch):
    lookout, run_id = lookout_of(fleet), await run_id_of(fleet)
    await lookout.look(run_id)
    ask = lookout._ask

    async def ask_then_die(*names: Any, **how: Any) -> Any:
        found = await ask(*names, **how)
        await fleet.store.redis.zrem(keys.INSTANCES, "w5")
        await fleet.store.redis.zadd(keys.DEAD, {"w5": found[0].now_ms})
        return found

    monkeypatch.setattr(lookout, "_ask", ask_then_die)
    sighting = await lookout.look(run_id, also={"w5"})
    assert list(sighting.evidence.observation.dead) == ["w5"]
    assert lookout.roll.known["w5"].description.queue == "mail"
