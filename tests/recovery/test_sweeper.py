"""One sweep: what it makes of the evidence, and what it returns."""

import pytest

from async_tracker.config import Settings
from async_tracker.liveness.presence import Presence
from async_tracker.namespace import Namespace
from async_tracker.policy import InstanceState, Limits, absence_from
from async_tracker.recovery.sweeper import Sweeper, Swept, make_sweeper
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.instance_record import Description, encode_description
from async_tracker.store.observation import Connections

DESCRIPTION = Description(library="asyncio", host="h", host_id="0f", pid=7)
PAUSE_MS = 90_000
"""More than an instance may be silent."""


@pytest.fixture
async def store(redis_client, namespace) -> Store:
    return Store(Namespace(redis_client, namespace))


@pytest.fixture
async def run_id(redis_client) -> str:
    found: str = (await redis_client.info("server"))["run_id"]
    return found


async def register(store: Store, redis_client, run_id: str, name: str) -> None:
    """Register an instance whose connection is there."""
    connections = Connections(server=run_id, ids={await redis_client.client_id(): ""})
    await store.register(name, 1, connections.encode(), {**encode_description(DESCRIPTION, Limits()), "state": "alive"})


def sweeper_of(store: Store, presence: Presence) -> Sweeper:
    return make_sweeper(Settings(namespace="any"), store, None, library="asyncio", on_event=lambda event: None, presence=presence)


@pytest.mark.parametrize("was_away", [True, False])
async def test_a_sweeper_that_was_out_of_reach_itself_gives_the_silent_time_to_return(store, redis_client, run_id, was_away):
    """What stopped it may have stopped all: their heartbeats are as old as its own absence."""
    await register(store, redis_client, run_id, "silent")
    now_ms = (await store.observe("")).now_ms
    await store.redis.zadd(keys.INSTANCES, {"silent": now_ms - PAUSE_MS})
    presence = Presence(away_after=15.0)
    presence.note(now_ms - (PAUSE_MS if was_away else 1_000))
    _, verdicts = await sweeper_of(store, presence).judge_all(run_id)
    assert verdicts["silent"].state is (InstanceState.ALIVE if was_away else InstanceState.DEAD)


async def test_a_sweep_says_whether_it_was_alone(store, redis_client, run_id):
    sweeper = sweeper_of(store, Presence())
    await register(store, redis_client, run_id, "one")
    assert await sweeper.sweep(run_id) == Swept(was_alone=True)
    await register(store, redis_client, run_id, "other")
    assert await sweeper.sweep(run_id) == Swept()


async def test_a_sweeper_never_declares_itself_dead_whatever_is_stored_of_it(store, redis_client, run_id):
    """As where its heartbeats are refused, and its sweeps are not."""
    for name in ("sweeps", "silent"):
        await register(store, redis_client, run_id, name)
        await store.redis.zadd(keys.INSTANCES, {name: 1})
    sweeper = sweeper_of(store, Presence())
    await sweeper.sweep(run_id, itself="sweeps")
    assert set((await store.observe("")).instances) == {"sweeps"}
    await sweeper_of(store, Presence()).sweep(run_id, itself="another")
    assert set((await store.observe("")).instances) == set()


async def test_each_stall_is_announced_once_however_many_sweepers_see_it(store, redis_client, run_id, caplog):
    """Two libraries in one namespace have a sweeper each, and a sweeper that comes after another one has seen none of it."""
    heard: dict[str, list[str]] = {"arq": [], "asyncio": [], "later": []}

    def sweeper(whose: str, library: str) -> Sweeper:
        return make_sweeper(Settings(namespace="any"), store, None, library=library, on_event=heard[whose].append)

    async def silent_for(milliseconds: int) -> None:
        now_ms = (await store.observe("")).now_ms
        await store.redis.zadd(keys.INSTANCES, {"silent": now_ms - milliseconds})

    await register(store, redis_client, run_id, "silent")
    await silent_for(20_000)
    both = [sweeper("arq", "arq"), sweeper("asyncio", "asyncio")]
    for one in (*both, *both, sweeper("later", "asyncio")):
        await one.sweep(run_id)
    assert [len(events) for events in heard.values()] == [1, 0, 0]
    await silent_for(0)
    for one in both:
        await one.sweep(run_id)
    await silent_for(19_000)
    for one in reversed(both):
        await one.sweep(run_id)
    assert [len(events) for events in heard.values()] == [1, 1, 0]
    assert await store.redis.xlen(keys.EVENTS) == 2
    assert await store.redis.hget(keys.STATS, "stalls") == b"2"
    assert len([line for line in caplog.messages if line.startswith("instance silent is stalled: ")]) == 2


async def test_a_stall_is_no_news_where_the_instance_has_beaten_meanwhile(store, redis_client, run_id):
    await register(store, redis_client, run_id, "silent")
    heartbeat = (await store.observe("")).instances["silent"]
    await store.redis.zadd(keys.INSTANCES, {"silent": float(heartbeat) + 1})
    assert not await store.note_stall("silent", heartbeat, "{}")
    assert await store.redis.exists(keys.EVENTS) == 0


async def test_a_silence_that_makes_heartbeats_of_the_living_stale_is_an_absence_however_short(store, redis_client, run_id):
    """The server did not answer for eleven seconds, or its clock was set forward. It does not tell of connections."""
    limits = Limits()
    connections = Connections(server=run_id, ids={})
    await store.register("lives", 1, connections.encode(), {**encode_description(DESCRIPTION, limits), "state": "alive"})
    now_ms, gap_ms = (await store.observe("")).now_ms, 11_000
    await store.redis.zadd(keys.INSTANCES, {"lives": now_ms - gap_ms - 5_000})  # it was to beat when the server fell silent
    presence = Presence(away_after=absence_from(limits.heartbeat_ttl, 5.0))
    presence.note(now_ms - gap_ms)
    await sweeper_of(store, presence).sweep(run_id)
    assert set((await store.observe("")).instances) == {"lives"}
    never_away = Presence()
    await sweeper_of(store, never_away).sweep(run_id)
    assert set((await store.observe("")).instances) == set()
