"""What a question may cost, as a budget that is counted: round trips, and keys that it has no business with."""

from collections.abc import Callable

import redis.asyncio

from async_tracker import Tracker
from async_tracker.embedded import EmbeddedServer
from async_tracker.namespace import Namespace
from async_tracker.queries.questions import Queries
from async_tracker.store.reading import Reading
from benchmarks.queries import count_round_trips, named_connections, write_namespace

QUERY_ROUND_TRIPS = 4


async def test_a_question_costs_four_round_trips_whatever_there_is_to_tell_and_looks_at_nothing_else(
    make_server: Callable[..., EmbeddedServer], namespace: str
):
    url = make_server().url
    with named_connections(url, 120) as connections:  # so many that their jobs are read in two halves
        client = redis.asyncio.Redis.from_url(url)
        await write_namespace(client, namespace, connections=connections, jobs_each=5)
        await client.mset({f"foreign:{number}": "" for number in range(1_000)})
        tracker = Tracker(namespace=namespace, redis=client)
        assert len((await tracker.snapshot()).jobs) == 600
        await client.config_resetstat()
        questions = (tracker.snapshot, tracker.instances, tracker.jobs, tracker.orphans, tracker.stats, tracker.quarantined)
        trips = {question.__name__: await count_round_trips(client, question) for question in questions}
        assert {name: count for name, count in trips.items() if count > QUERY_ROUND_TRIPS} == {}
        proxy = Namespace(client, namespace)
        in_many_parts = Queries(proxy, reading=Reading(proxy, instances_at_once=7, records_at_once=50))
        assert await count_round_trips(client, in_many_parts.snapshot) == QUERY_ROUND_TRIPS
        called = {name.removeprefix("cmdstat_") for name in await client.info("commandstats")}
        assert not called & {"keys", "scan", "sscan", "hscan", "zscan"}
        await client.aclose()
