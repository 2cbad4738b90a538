"""Two versions of this library share a namespace: an instance of the other one is judged by its own word."""

import pytest

from async_tracker.config import Settings
from async_tracker.namespace import Namespace
from async_tracker.policy import InstanceState
from async_tracker.recovery.sweeper import Sweeper, make_sweeper
from async_tracker.store.commands import Store
from async_tracker.store.counters import TotalsBatch
from async_tracker.store.observation import Connections
from async_tracker.store.writes import Beat
from tests.harness.wait import wait_until


def sweeper_of(store, library="arq") -> Sweeper:
    return make_sweeper(Settings(namespace="any"), store, None, library=library, on_event=lambda event: None)


async def register(store, run_id, **fields):
    gone = Connections(server=run_id, ids={10**9: "async-tracker:gone"}).encode()
    await store.register("newer:1:ab", 1, gone, {"schema": "2", "library": "arq", **fields})


async def run_id_of(redis_client):
    return (await redis_client.info("server"))["run_id"]


async def test_an_instance_of_a_newer_version_is_judged_by_its_own_limits(redis_client, namespace):
    store, run_id = Store(Namespace(redis_client, namespace)), await run_id_of(redis_client)
    await register(store, run_id, limits="[15.0,30.0,60.0,null]")
    sweeper = sweeper_of(store)
    _, first = await sweeper.judge_all(run_id)
    assert first["newer:1:ab"].state is InstanceState.ALIVE
    observation = await store.observe(run_id)
    assert "newer:1:ab" in observation.gone  # its connection is missed, and a grace of 30 s is respected
    await redis_client.hset(f"{namespace}:gone", "newer:1:ab", observation.now_ms - 29_000)
    assert (await sweeper.judge_all(run_id))[1]["newer:1:ab"].state is InstanceState.ALIVE
    await redis_client.hset(f"{namespace}:gone", "newer:1:ab", observation.now_ms - 31_000)
    assert (await sweeper.judge_all(run_id))[1]["newer:1:ab"].state is InstanceState.DEAD


@pytest.mark.parametrize("limits", ["{}", "[1]", "rubbish"])
async def test_an_instance_whose_limits_cannot_be_read_is_left_to_its_own_version(redis_client, namespace, limits):
    store, run_id = Store(Namespace(redis_client, namespace)), await run_id_of(redis_client)
    await register(store, run_id, limits=limits)
    sweeper = sweeper_of(store)
    await sweeper.sweep(run_id)
    await redis_client.hset(f"{namespace}:gone", "newer:1:ab", 1)

    async def swept():
        await sweeper.sweep(run_id)
        return "newer:1:ab" in (await store.observe(run_id)).instances

    await wait_until(swept, timeout=5, description="the sweep has seen it and left it alone")
    assert "newer:1:ab" not in (await store.observe(run_id)).dead


async def test_a_foreign_key_in_place_of_the_counters_costs_no_heartbeat(redis_client, namespace):
    store, run_id = Store(Namespace(redis_client, namespace)), await run_id_of(redis_client)
    await register(store, run_id, limits="[15.0,1.0,60.0,null]")
    await redis_client.set(f"{namespace}:stats", "somebody else's")
    totals = TotalsBatch(number=1, after=0, grown={'["f",null,"started"]': 3})
    reply = await store.beat("newer:1:ab", Beat(sequence=2, connections="", fields={"busy": 0}, totals=totals))
    assert (reply.status, reply.newest_totals) == (1, 1), "it is not sent again and again"


async def test_what_an_older_version_has_kept_of_an_instance_goes_with_it(redis_client, namespace):
    store, run_id = Store(Namespace(redis_client, namespace)), await run_id_of(redis_client)
    await register(store, run_id, limits="[15.0,1.0,60.0,null]")
    await redis_client.hset(f"{namespace}:counters:newer:1:ab", '["f",null,"started"]', 3)
    await redis_client.zrem(f"{namespace}:instances", "newer:1:ab")
    await redis_client.zadd(f"{namespace}:dead", {"newer:1:ab": 1})
    assert await store.bury("newer:1:ab")
    assert not await redis_client.exists(f"{namespace}:counters:newer:1:ab", f"{namespace}:instance:newer:1:ab")
