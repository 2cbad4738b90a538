"""How much of Redis one instance takes: two numbers of what it counts, whatever its functions."""

from collections.abc import Sequence

import pytest

from async_tracker import Tracker
from async_tracker.instance.function_list import FunctionList
from async_tracker.instance.host import new_instance_id
from async_tracker.namespace import Namespace
from async_tracker.policy import Limits
from async_tracker.store.commands import Store
from async_tracker.store.counters import TotalsBatch, field_name
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.writes import Beat
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

MOST_BYTES = 4_096
FLEET = 1_000


async def bytes_of(redis_client, names: Sequence[str]) -> int:
    return sum([await redis_client.memory_usage(name, samples=0) for name in names])


@pytest.mark.parametrize("functions", [20, 100, 1_000])
async def test_what_an_instance_counts_takes_no_more_of_redis_with_many_functions_than_with_few(
    redis_client, redis_url, namespace, functions: int
):
    """``functions`` that it has run, and that it did not list as those that it can run."""
    tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, **{**QUIET, "heartbeat_interval": 0.1})
    async with tracker, tracker.register(queue="mail", functions=["send"]) as instance_id:
        for number in range(functions):
            async with tracker.track(str(number), function=f"send_invoice_{number:04}", queue="mail"):
                pass

        async def all_counted() -> bool:
            stats = await tracker.stats()
            return stats.succeeded == functions == len(stats.functions)

        await wait_until(all_counted, description="all is counted")
        own = [name.decode() async for name in redis_client.scan_iter(f"{namespace}:*{instance_id}*")]
        assert own == [f"{namespace}:instance:{instance_id}"]
        assert await bytes_of(redis_client, own) < MOST_BYTES / 2


@pytest.mark.parametrize("functions", [100, 1_000])
async def test_of_a_thousand_instances_with_many_functions_each_takes_less_than_4_kb_all_keys_together(
    redis_client, namespace, functions: int
):
    """The list of their names is counted as well: it is kept once for all that have the same."""
    store = Store(Namespace(redis_client, namespace))
    names = [f"send_invoice_{number:04}" for number in range(functions)]
    described = Description(library="arq", host="worker-7.example", host_id="h" * 32, pid=4_242, queue="arq:queue", functions=tuple(names))
    fields = {**encode_description(described, Limits()), "state": "alive"}
    grown = {field_name(name, "arq:queue", counter): 1 for name in names[:100] for counter in ("started", "succeeded", "run_ms")}
    connections = '{"server":"' + "5" * 40 + '","ids":{"12345":"async-tracker:edaf0f0580ed"}}'
    alone = [f"{namespace}:stats"]
    for number in range(FLEET):
        instance_id = new_instance_id(None)
        if number % 100 == 0:
            await FunctionList().keep(store, described, instance_id)
        await store.register(instance_id, 1, connections, fields)
        await store.beat(instance_id, Beat(sequence=2, connections="", fields={"busy": 1, "rss_bytes": 10**8, "loop_lag_ms": 1}))
        if number % 100 == 0:
            await store.beat(instance_id, Beat(sequence=3, connections="", fields={}, totals=TotalsBatch(number=1, after=0, grown=grown)))
    every = [name.decode() async for name in redis_client.scan_iter(f"{namespace}:*", count=1_000)]
    per_instance = await bytes_of(redis_client, [name for name in every if name not in alone]) / FLEET
    assert per_instance < MOST_BYTES
    assert (await redis_client.hlen(alone[0])) == len(grown), "the totals of all stand in one place"
