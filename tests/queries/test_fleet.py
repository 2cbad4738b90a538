"""All instances, asked for again and again: where they are known it is not asked first who is there."""

import redis.asyncio

from benchmarks.queries import count_round_trips, named_connections, write_namespace


async def test_a_fleet_that_is_known_takes_two_round_trips_and_one_that_has_changed_is_told_as_it_is(make_tracker, redis_url, namespace):
    client = redis.asyncio.Redis.from_url(redis_url)
    asker = make_tracker(redis=client)
    with named_connections(redis_url, 3) as connections:
        await write_namespace(client, namespace, connections=connections, jobs_each=1)
        every = [item.instance_id for item in await asker.instances()]
        assert len(every) == 3
        for known in ([], every, every[:2], [*every, "gone:1:ab"], ["gone:1:ab"]):
            found = await asker.fleet(known)
            assert [item.instance_id for item in found.instances] == every, known
            assert (sorted(found.names), found.unread) == (sorted(every), [])
        for known, trips in (([], 3), (every, 2), ([*every, "gone:1:ab"], 2), (every[:2], 3)):
            assert await count_round_trips(client, lambda known=known: asker.fleet(known)) == trips, known
        await client.hset(f"{namespace}:instance:{every[0]}", "schema", "99")
        found = await asker.fleet(every)
        assert ([item.instance_id for item in found.instances], found.unread) == (every[1:], [f"instance:{every[0]}"])
        await client.zrem(f"{namespace}:instances", *every)
        assert await asker.fleet(every) == await asker.fleet() == await asker.fleet([])
        assert (await asker.fleet(every)).names == []
    await client.aclose()
