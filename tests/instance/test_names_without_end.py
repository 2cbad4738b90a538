"""However many functions there are, as where names are made of ids: a thousand are kept apart by a process, and all others are one."""

import asyncio
import gc
import tracemalloc

from async_tracker import Tracker
from async_tracker.namespace import Namespace
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.counters import OTHER, PAIRS_KEPT, TotalsBatch, counters_in_parts, field_name, short_name
from async_tracker.store.scripts import STATS_KEPT
from async_tracker.store.writes import Beat
from tests.harness.inside import runtime_of
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

NAMES, MEASURED = 100_000, 5_000
LONG = 10_000
MEGABYTE = 1_000_000


def name_of(number: int) -> str:
    """Give a name that was never meant to be one: quotes, a newline, JSON, and some of them very long."""
    return f'send "{number}"\n{{["' + ("x" * LONG if number % 500 == 0 else "")


async def test_a_hundred_thousand_names_are_a_thousand_and_others_in_the_process_as_in_redis(redis_client, redis_url, namespace):
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, **{**QUIET, "heartbeat_interval": 0.1})
    async with tracker, tracker.register(queue="mail"):
        runtime = runtime_of(tracker)

        async def run(numbers: range) -> None:
            for number in numbers:
                runtime.finish_run(runtime.start_run(str(number), function=name_of(number), queue="mail"), "succeeded")
                if number % 100 == 0:
                    await asyncio.sleep(0)

            async def counted() -> bool:
                return (await tracker.stats()).succeeded == numbers.stop

            await wait_until(counted, timeout=30, description="all is counted")

        await run(range(NAMES - MEASURED))
        gc.collect()
        tracemalloc.start()
        try:
            await run(range(NAMES - MEASURED, NAMES))
            gc.collect()
            kept, _ = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert kept < MEGABYTE, "what the process has not yet given up, and no entry for each name"

        stats = await tracker.stats()
        rows = {row.function: row.succeeded for row in stats.functions}
        assert len(rows) == PAIRS_KEPT + 1
        assert rows.pop(OTHER) == NAMES - PAIRS_KEPT
        assert set(rows) == {short_name(name_of(number)) for number in range(PAIRS_KEPT)}
        assert (await tracker.stats(function=name_of(500))).succeeded == 1, "asked for by the whole of its long name"
        window = {row.function: row.succeeded for row in (await tracker.stats(window=3_600)).functions}
        assert window == {**rows, OTHER: NAMES - PAIRS_KEPT}
        found = [name async for name in redis_client.scan_iter(f"{namespace}:*", count=1_000)]
        assert sum([await redis_client.memory_usage(name, samples=0) for name in found]) < 4 * MEGABYTE


async def test_a_namespace_keeps_so_many_counters_of_all_time_and_counts_new_functions_as_others_from_then_on(redis_client, namespace):
    """As processes come and go, each with names of its own."""
    store = Store(Namespace(redis_client, namespace))
    instances, names = 12, 1_000

    def grown(instance: int, first: int) -> dict[str, int]:
        return {field_name(f"{instance} {n}", None, counter): 1 for n in range(first, names) for counter in ("started", "succeeded")}

    async def count(instance: int, counters: dict[str, int]) -> None:
        instance_id = f"w:{instance}:ab"
        await store.register(instance_id, 1, "", {"schema": "1"})
        for number, part in enumerate(counters_in_parts(counters, size=1_000), 1):
            totals = TotalsBatch(number=number, after=number - 1, grown=part)
            await store.beat(instance_id, Beat(sequence=1 + number, connections="", fields={}, totals=totals))

    for instance in range(instances):
        await count(instance, grown(instance, 0))
    assert STATS_KEPT <= await redis_client.hlen(f"{namespace}:{keys.STATS}") <= STATS_KEPT + 1_000
    await count(99, {field_name("0 7", None, "started"): 1, field_name("0 7", None, "failed"): 1, field_name("new", "mail", "failed"): 1})
    stored = {name.decode(): int(value) for name, value in (await redis_client.hgetall(f"{namespace}:{keys.STATS}")).items()}
    assert stored[field_name("0 7", None, "started")] == 2
    assert stored[field_name("0 7", None, "failed")] == 1, "one that is known goes on, with what it has not counted before as well"
    assert stored[field_name(OTHER, None, "failed")] == 1
    assert sum(value for name, value in stored.items() if name.endswith('"started"]')) == instances * names + 1
    assert sum(value for name, value in stored.items() if name.endswith('"succeeded"]')) == instances * names
    assert stored[field_name(OTHER, None, "started")] > 0
