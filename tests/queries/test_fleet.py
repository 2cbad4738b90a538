"""All instances, asked for again and again: where they are known it is not asked first who is there."""

from collections.abc import Mapping
from dataclasses import replace

import redis.asyncio

from async_tracker.store.instance_record import StoredInstance, decode_instance
from benchmarks.queries import count_round_trips, named_connections, write_namespace


async def test_a_fleet_that_is_known_takes_two_round_trips_and_one_that_has_changed_is_told_as_it_is(make_tracker, redis_url, namespace):
    client = redis.asyncio.Redis.from_url(redis_url)
    asker = make_tracker(redis=client)
    with named_connections(redis_url, 3) as connections:
        await write_namespace(client, namespace, connections=connections, jobs_each=1)
        every = [item.instance_id for item in await asker.instances()]
        assert len(every) == 3
        first = await asker.fleet()
        for known in ([], every, every[:2], [*every, "gone:1:ab"], ["gone:1:ab"]):
            found = await asker.fleet(replace(first, names=known))
            assert [item.instance_id for item in found.instances] == every, known
            assert (sorted(found.names), found.unread) == (sorted(every), [])
        for known, trips in (([], 3), (every, 2), ([*every, "gone:1:ab"], 2), (every[:2], 3)):
            assert await count_round_trips(client, lambda known=known: asker.fleet(replace(first, names=known))) == trips, known
        await client.hset(f"{namespace}:instance:{every[0]}", "schema", "99")
        found = await asker.fleet(first)
        assert ([item.instance_id for item in found.instances], found.unread) == (every[1:], [f"instance:{every[0]}"])
        await client.zrem(f"{namespace}:instances", *every)
        assert await asker.fleet(first) == await asker.fleet() == await asker.fleet(replace(first, names=[]))
        assert (await asker.fleet(first)).names == []
    await client.aclose()


async def test_of_a_fleet_that_is_known_only_what_has_changed_is_decoded(make_tracker, redis_url, redis_client, namespace, monkeypatch):
    decoded: list[str] = []

    def noted(key: str, name: str, stored: Mapping[str, str]) -> StoredInstance:
        decoded.append(name)
        return decode_instance(key, name, stored)

    monkeypatch.setattr("async_tracker.store.reading.decode_instance", noted)
    asker = make_tracker()
    with named_connections(redis_url, 3) as connections:
        await write_namespace(redis_client, namespace, connections=connections, jobs_each=1)
        decoded.clear()
        fleet = await asker.fleet()
        every = [item.instance_id for item in fleet.instances]
        assert sorted(decoded) == sorted(every)
        decoded.clear()
        again = await asker.fleet(fleet)
        assert decoded == []
        assert [replace(item, heartbeat_age=0.0, reason="") for item in again.instances] == [
            replace(item, heartbeat_age=0.0, reason="") for item in fleet.instances
        ]
        await redis_client.hset(f"{namespace}:instance:{every[1]}", mapping={"busy": 7, "state": "draining"})
        await redis_client.hset(f"{namespace}:connections", every[2], '{"server":"none","ids":{"5":"x"}}')
        again = await asker.fleet(again)
        assert decoded == [every[1]]
        assert [(item.busy, str(item.state)) for item in again.instances][1] == (7, "draining")
        assert again.instances[2].connection_ids == (5,)
        await redis_client.hset(f"{namespace}:instance:{every[1]}", "schema", "99")
        again = await asker.fleet(again)
        assert (len(again.instances), again.unread) == (2, [f"instance:{every[1]}"])
        await redis_client.zrem(f"{namespace}:instances", every[0])
        again = await asker.fleet(again)
        assert every[0] not in again.said.instances
        assert every[0] not in again.said.connections
