"""What dead instances left is found whole, also while another sweeper is at work on it."""

from collections.abc import AsyncIterator, Mapping

import pytest

from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.recovery.adapter import Claim
from async_tracker.recovery.leftovers import Leftovers
from async_tracker.recovery.orphans import Left
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.reading import Reading
from async_tracker.store.run_record import RunRecord
from benchmarks.queries import count_round_trips

DESCRIPTION = Description(library="arq", host="h", host_id="0f", pid=7)
ORPHAN = RunRecord(job_id="42", instance_id="dead", token="f00d", queue="q", library="arq", started_at_ms=1)
NEWER = RunRecord(job_id="42", instance_id="lives", token="beef", queue="q", library="arq", started_at_ms=2)


class Overtaken(ArqAdapter):
    """An adapter during whose search another sweeper adopts the orphan and releases it, and the job runs again."""

    def __init__(self, store: Store) -> None:
        super().__init__(store.redis.redis, receipt_key=store.redis.full_key)
        self._other = store

    async def claims_of(self, dead: Mapping[str, Description | None]) -> AsyncIterator[Claim]:
        assert await self._other.adopt("dead", [ORPHAN])
        await self._other.write("lives", 2, started=[NEWER], ended=[])
        async for claim in super().claims_of({}):
            yield claim


@pytest.fixture
async def store(redis_client, namespace) -> Store:
    """A namespace with a dead instance that had a job in flight, and one that lives."""
    store = Store(Namespace(redis_client, namespace))
    for name in ("dead", "lives"):
        await store.register(name, 1, "", {**encode_description(DESCRIPTION, Limits()), "state": "alive"})
    await store.write("dead", 2, started=[ORPHAN], ended=[])
    await redis_client.zrem(f"{namespace}:{keys.INSTANCES}", "dead")
    await redis_client.zadd(f"{namespace}:{keys.DEAD}", {"dead": 5})
    return store


def leftovers_of(store: Store, adapter: ArqAdapter | None) -> Leftovers:
    reading = Reading(store.redis)
    return Leftovers(store=store, reading=reading, library="arq", adapter=adapter, recovery_window=60.0, on_event=lambda event: None)


async def test_an_orphan_that_another_sweeper_releases_meanwhile_is_still_found_as_what_it_was(store):
    left = await leftovers_of(store, Overtaken(store)).find(["dead"], now_ms=9, adopt=False)
    assert [(orphan.record, orphan.stands) for orphan in left.orphans] == [(ORPHAN, True)]


async def test_what_our_records_know_of_the_dead_is_found_in_two_round_trips(store, redis_client):
    leftovers = leftovers_of(store, None)

    async def find() -> Left:
        return await leftovers.find(["dead"], now_ms=9, adopt=False)

    assert await count_round_trips(redis_client, find) == 2
    assert [orphan.record for orphan in (await find()).orphans] == [ORPHAN]
