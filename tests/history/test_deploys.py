"""A deploy is marked once: when the first instance of a version is there, or of one that is back after another one."""

import asyncio
from collections.abc import Callable

import pytest
import redis.asyncio

from async_tracker import Event, Tracker
from async_tracker.history.keeper import HistoryKeeper
from async_tracker.namespace import Namespace
from async_tracker.store import keys
from async_tracker.store.commands import Store
from async_tracker.store.reading import Reading
from async_tracker.store.scripts import DEPLOYS_KEPT, VERSION_AWAY_MS
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

EVENT = '{"schema":1,"type":"deployed"}'


@pytest.fixture
def store(redis_client: redis.asyncio.Redis, namespace: str) -> Store:
    return Store(Namespace(redis_client, namespace))


@pytest.fixture
def make_instance(redis_url: str, namespace: str) -> Callable[..., Tracker]:
    def make(**settings: object) -> Tracker:
        return Tracker(namespace=namespace, redis_options={"url": redis_url}, **{**QUIET, **settings})

    return make


async def put_out_of_sight(store: Store, version: str) -> None:
    """Let no instance of a version have been seen for longer than a restart takes."""
    await store.redis.zincrby(keys.VERSIONS, -VERSION_AWAY_MS - 1_000, version)


async def marked(store: Store) -> list[str]:
    return [deploy.partition(":")[2] for deploy in (await Reading(store.redis).history_index()).deploys]


async def test_the_first_instance_of_a_version_is_an_event_and_a_mark_and_no_other_is(store: Store, make_instance: Callable[..., Tracker]):
    heard: list[Event] = []
    for version in ("1.0", "1.0", "1.1: the second"):
        tracker = make_instance(version=version)
        tracker.on("deployed")(heard.append)
        async with tracker, tracker.register(queue="mail") as instance_id:
            await wait_until(lambda version=version: _is_marked(store, version), description="the version is known")
            (instance,) = await tracker.instances()
            history = await tracker.history(function="whatever", since=600)
            assert (instance.version, instance.instance_id) == (version, instance_id)
    assert [(event.type, event.details["version"], event.queue) for event in heard] == [
        ("deployed", "1.0", "mail"),
        ("deployed", "1.1: the second", "mail"),
    ]
    assert [deploy.version for deploy in history.deploys] == ["1.0", "1.1: the second"]
    assert history.points[0].at <= history.deploys[0].at <= history.deploys[1].at
    async with make_instance() as tracker:
        told = [event for event in await tracker.recent_events() if event.type == "deployed"]
    assert [event.details["version"] for event in told] == ["1.0", "1.1: the second"]


async def _is_marked(store: Store, version: str) -> bool:
    return await store.redis.zscore(keys.VERSIONS, version) is not None


async def test_an_instance_without_a_version_marks_nothing(store: Store, make_instance: Callable[..., Tracker]):
    async with make_instance() as tracker, tracker.register():
        assert await store.redis.exists(keys.VERSIONS, keys.DEPLOYS) == 0


async def test_a_rollback_is_a_deploy_and_a_restart_of_the_old_version_during_a_rollout_is_none(store: Store):
    assert [await store.mark_deploy(version, EVENT) for version in ("1.0", "1.1", "1.0", "1.1")] == [True, True, False, False]
    await put_out_of_sight(store, "1.0")
    assert await store.mark_deploy("1.0", EVENT)
    assert sorted(await marked(store)) == ["1.0", "1.0", "1.1"]  # two of the same millisecond have no order


async def test_a_fleet_that_returns_after_a_weekend_with_its_version_is_no_deploy(store: Store):
    await store.mark_deploy("1.0", EVENT)
    await put_out_of_sight(store, "1.0")
    assert not await store.mark_deploy("1.0", EVENT)


async def test_the_sweeper_keeps_the_versions_of_the_fleet_in_sight(store: Store, make_instance: Callable[..., Tracker]):
    async with make_instance(version="1.0") as tracker, tracker.register():
        await wait_until(lambda: _is_marked(store, "1.0"), description="the version is known")
        await put_out_of_sight(store, "1.0")
        keeper = HistoryKeeper(store=store, reading=Reading(store.redis), library="asyncio", depths=None)
        await keeper.keep(int((await store.redis.redis.time())[0]) * 1_000)
        await store.mark_deploy("1.1", EVENT)
        assert not await store.mark_deploy("1.0", EVENT)


async def test_of_very_many_versions_the_newest_are_kept(store: Store):
    for number in range(DEPLOYS_KEPT + 20):
        await store.mark_deploy(f"v{number}", EVENT)
    assert await store.redis.zcard(keys.VERSIONS) == DEPLOYS_KEPT
    assert (await marked(store))[-1] == f"v{DEPLOYS_KEPT + 19}"
    assert len(await marked(store)) == DEPLOYS_KEPT


async def test_a_mark_that_redis_refuses_is_said_once_and_costs_no_heartbeat(
    store: Store, make_instance: Callable[..., Tracker], caplog: pytest.LogCaptureFixture
):
    await store.redis.set(keys.DEPLOYS, "of another program", ex=60)
    async with make_instance(version="1.0", heartbeat_interval=0.02) as tracker, tracker.register():
        (instance,) = await tracker.instances()
        await wait_until(lambda: _has_beaten_since(tracker, instance.heartbeat_at), description="it beats on")
        assert not tracker.is_behind
    assert len([line for line in caplog.messages if "the deploy of version 1.0 is not in the history" in line]) == 1


async def _has_beaten_since(tracker: Tracker, moment: object) -> bool:
    await asyncio.sleep(0)
    (instance,) = await tracker.instances()
    return instance.heartbeat_at > moment  # type: ignore[operator]


async def test_a_mark_is_made_again_where_the_server_has_lost_its_data(store: Store, make_instance: Callable[..., Tracker]):
    async with make_instance(version="1.0", heartbeat_interval=0.02) as tracker, tracker.register():
        await wait_until(lambda: _is_marked(store, "1.0"), description="the version is known")
        for key in [key async for key in store.redis.scan_iter("*")]:
            await store.redis.unlink(key)
        await wait_until(lambda: _is_marked(store, "1.0"), description="the version is known again")
