"""The watchdog's word and the loop's beat cross each other: whichever arrives last, a live instance is not taken for a dead one."""

import asyncio
import json

from async_tracker.connections.calls import run_script
from async_tracker.namespace import Namespace
from async_tracker.store import keys
from async_tracker.store.scripts import SCRIPTS
from tests.harness.inside import runtime_of
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

OF_THE_VOICE = json.dumps({"server": "", "ids": {"999999": "async-tracker-watchdog:gone"}}, separators=(",", ":"))


async def say(redis_client, namespace: str, instance_id: str, number: int) -> int:
    names = [keys.INSTANCES, keys.instance(instance_id), keys.CONNECTIONS, keys.GONE, keys.WATCHDOGS]
    arguments = (instance_id, number, OF_THE_VOICE, "[]", 1000)
    status, _, _ = await run_script(Namespace(redis_client, namespace), SCRIPTS["speak"], names, arguments)
    return int(status)


async def test_a_word_that_is_older_than_a_beat_changes_nothing(tracker, redis_client, namespace):
    async with tracker.register() as instance_id:
        before = await redis_client.hgetall(f"{namespace}:connections")
        assert await say(redis_client, namespace, instance_id, 1) == 0
        assert await redis_client.hgetall(f"{namespace}:connections") == before
        assert not await redis_client.exists(f"{namespace}:watchdogs")


async def test_what_the_watchdog_says_is_followed_by_a_beat_that_registers_the_loop_again(make_tracker, redis_client, namespace):
    tracker = make_tracker(heartbeat_interval=0.2, heartbeat_ttl=5.0, watchdog=False)
    async with tracker.register() as instance_id:
        voice = runtime_of(tracker).voice
        own = await redis_client.hget(f"{namespace}:connections", instance_id)
        await asyncio.to_thread(voice.speak, 1.0)
        assert voice.spoken == 1

        async def is_back() -> bool:
            standing = await redis_client.hget(f"{namespace}:connections", instance_id)
            return standing == own and not voice.may_have_registered

        await wait_until(is_back, description="the loop's own connection is registered again")
        assert voice.is_overridden
        voice.hang_up()


async def test_a_beat_overrides_only_what_had_been_said_when_it_was_made(make_tracker):
    tracker = make_tracker(**QUIET)
    async with tracker.register():
        voice = runtime_of(tracker).voice
        await asyncio.to_thread(voice.speak, 1.0)
        await asyncio.to_thread(voice.speak, 2.0)
        voice.give_way(voice.spoken - 1)
        assert (voice.may_have_registered, voice.is_overridden) == (True, False)
        await runtime_of(tracker).registration.beat()
        assert (voice.may_have_registered, voice.is_overridden) == (False, True)
        voice.hang_up()


async def test_a_watchdog_that_was_told_to_stop_takes_no_number_before_what_the_loop_says_last(make_tracker):
    tracker = make_tracker(**QUIET)
    async with tracker.register():
        runtime = runtime_of(tracker)
        runtime.watchdog.stop()
        number = runtime.pen.next_number()
        await asyncio.to_thread(runtime.voice.speak, 1.0)  # what its thread may be in the middle of
        assert runtime.pen.next_number() == number + 1
        assert runtime.voice.spoken == 0
        runtime.voice.hang_up()
