"""The watchdog's word and the loop's beat cross each other: whichever arrives last, a live instance is not taken for a dead one."""

import json

from async_tracker.connections.calls import run_script
from async_tracker.namespace import Namespace
from async_tracker.store import keys
from async_tracker.store.scripts import SCRIPTS
from tests.harness.wait import wait_until

TWIN = json.dumps({"server": "", "ids": {"999999": "async-tracker-watchdog:gone"}}, separators=(",", ":"))


async def say(redis_client, namespace: str, instance_id: str, number: int) -> int:
    names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS]
    arguments = (instance_id, number, TWIN, "[]", 1000)
    status, _ = await run_script(Namespace(redis_client, namespace), SCRIPTS["speak"], names, arguments)
    return int(status)


async def test_a_word_that_is_older_than_a_beat_changes_nothing(tracker, redis_client, namespace):
    async with tracker.register() as instance_id:
        before = await redis_client.hgetall(f"{namespace}:connections")
        assert await say(redis_client, namespace, instance_id, 1) == 0
        assert await redis_client.hgetall(f"{namespace}:connections") == before
        assert not await redis_client.exists(f"{namespace}:watchdogs")


async def test_a_word_that_overtakes_no_beat_is_followed_by_one_that_registers_the_loop_again(make_tracker, redis_client, namespace):
    tracker = make_tracker(heartbeat_interval=0.2, heartbeat_ttl=5.0)
    async with tracker.register() as instance_id:
        runtime = tracker._runtime
        own = await redis_client.hget(f"{namespace}:connections", instance_id)
        number = runtime.pen.next_number()
        runtime.watchdog.words += 1  # as its thread does before it sends
        assert await say(redis_client, namespace, instance_id, number) in (0, 1)

        async def is_back() -> bool:
            standing = await redis_client.hget(f"{namespace}:connections", instance_id)
            return standing == own and not runtime.watchdog.has_registered

        await wait_until(is_back, description="the loop's own connection is registered again")


async def test_a_beat_answers_only_the_words_that_it_has_heard_of(tracker):
    async with tracker.register():
        watchdog = tracker._runtime.watchdog
        watchdog.words += 1
        watchdog.rest(watchdog.words - 1)
        assert watchdog.has_registered
        watchdog.rest(watchdog.words)
        assert not watchdog.has_registered


async def test_a_watchdog_that_was_told_to_stop_takes_no_number_before_what_the_loop_says_last(tracker):
    async with tracker.register():
        runtime = tracker._runtime
        runtime.watchdog.stop()
        number = runtime.pen.next_number()
        runtime.watchdog._speak(1.0)  # what its thread may be in the middle of
        assert runtime.pen.next_number() == number + 1
        assert runtime.watchdog.words == 0
