"""What somebody else wrote where our records stand, and what arrives late: it harms nobody but itself."""

from async_tracker import Tracker
from async_tracker.doctor.examination import examine
from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store
from tests.harness.inside import runtime_of
from tests.harness.judgement import declare_dead
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until

QUICK = {"heartbeat_interval": 0.2, "heartbeat_ttl": 2.0, "silence_limit": 4.0}


async def test_a_foreign_key_in_the_place_of_an_ended_record_does_not_stop_the_journal(tracker, redis_client, namespace):
    async with tracker.register() as instance_id:
        async with tracker.track("42"):
            await wait_until(lambda: tracker.job("42"), description="the job is seen")
            await redis_client.delete(f"{namespace}:job:42")
            await redis_client.hset(f"{namespace}:job:42", "theirs", "1")
        async with tracker.track("43"):
            await wait_until(lambda: tracker.job("43"), description="the next job is seen")

            async def listed():
                return await redis_client.smembers(f"{namespace}:jobs:{instance_id}") == {b"43"}

            await wait_until(listed, description="the ended one is off the list")
    assert await redis_client.type(f"{namespace}:job:42") == b"hash"


async def test_a_registration_that_arrives_late_does_not_undo_a_newer_write(tracker, redis_client, namespace):
    store = Store(Namespace(redis_client, namespace))
    async with tracker.register() as instance_id:
        connections = await redis_client.hget(f"{namespace}:connections", instance_id)
        reply = await store.register(instance_id, 1, '{"server":"old","ids":{"999999":"gone"}}', {"state": "alive"})
        assert reply.status == 0
        assert await redis_client.hget(f"{namespace}:connections", instance_id) == connections


async def test_who_was_declared_dead_and_lives_counts_nothing_twice(make_tracker, redis_client, namespace):
    tracker: Tracker = make_tracker(**QUICK)
    async with tracker.register() as instance_id:
        for job_id in "abc":
            async with tracker.track(job_id, function="send"):
                pass

        async def counted() -> int:
            return (await tracker.stats()).succeeded

        async def three() -> bool:
            return await counted() == 3

        await wait_until(three, description="the runs are counted")
        await wait_until(lambda: declare_dead(redis_client, namespace, instance_id), description="it is declared dead")
        await wait_until(lambda: tracker.instance_id != instance_id, description="it goes on under another id")
        async with tracker.track("d", function="send"):
            pass

        async def four_or_more() -> bool:
            return await counted() >= 4

        await wait_until(four_or_more, description="what came since is counted")
        assert await counted() == 4


async def test_counters_that_were_lost_with_the_data_of_the_server_are_sent_again(make_tracker, redis_client):
    tracker: Tracker = make_tracker(**QUICK)
    async with tracker.register():
        async with tracker.track("a", function="send"):
            pass

        async def one() -> bool:
            return (await tracker.stats()).succeeded == 1

        await wait_until(one, description="the run is counted")
        await redis_client.flushdb()
        await wait_until(one, description="it is counted again")


async def test_the_records_of_a_dead_worker_that_nobody_can_recover_go_when_the_window_is_over(make_tracker, redis_client, namespace):
    settings = {"recovery_window": 0.5, "sweep_interval": 0.1}
    left, watching = make_tracker(**settings), make_tracker(**settings)
    async with watching.register():
        async with left.register():
            run = runtime_of(left).start_run("42", function="send")
            await wait_until(lambda: left.job("42"), description="the job is seen")
            assert run.in_flight

        async def was_told() -> bool:
            return "orphaned" in [event.type for event in await watching.recent_events()]

        await wait_until(was_told, description="it has become an orphan")

        async def gone() -> bool:
            return not await redis_client.exists(f"{namespace}:job:42")

        await wait_until(gone, description="its record is gone")
    await assert_no_leaks(redis_client, namespace)


async def test_a_loop_that_fails_is_told_with_the_heartbeat_and_shown_until_it_does_not(make_tracker, redis_client, namespace):
    tracker: Tracker = make_tracker(**QUICK)
    async with tracker.register() as instance_id:
        key = f"{namespace}:jobs:{instance_id}"
        await redis_client.set(key, "theirs")

        async def failing() -> str:
            (instance,) = await tracker.instances()
            return instance.failing

        async with tracker.track("42"):

            async def is_said() -> bool:
                return "writer: Redis refuses: WRONGTYPE" in await failing() and key in await failing()

            await wait_until(is_said, description="the beats say that the writer is refused, and over which key")
            found = [finding for finding in await examine(tracker) if finding.subject == instance_id]
            assert ["WRONGTYPE" in finding.says for finding in found] == [True]
            await redis_client.delete(key)

            async def is_over() -> bool:
                return await failing() == ""

            await wait_until(is_over, description="the beats say that it is over")
            assert await tracker.job("42") is not None


async def test_a_defect_in_a_loop_is_logged_once_and_told_while_it_lasts(make_tracker, monkeypatch, caplog):
    tracker: Tracker = make_tracker(**QUICK)
    async with tracker.register():
        runtime = tracker._runtimes.asked
        assert runtime is not None

        async def broken(*arguments: object, **options: object) -> None:
            raise ZeroDivisionError("a defect")

        monkeypatch.setattr(runtime.sweep_loop, "step", broken)

        async def is_said() -> bool:
            (instance,) = await tracker.instances()
            return "sweep: ZeroDivisionError: a defect" in instance.failing

        await wait_until(is_said, description="the beats say that the sweep fails")
    assert len([line for line in caplog.messages if "sweep failed and starts again" in line]) == 1


async def test_a_number_of_the_totals_that_is_none_costs_the_counters_and_no_heartbeat(make_tracker, redis_client, namespace):
    tracker: Tracker = make_tracker(**QUICK)
    async with tracker.register() as instance_id:
        await redis_client.hset(f"{namespace}:instance:{instance_id}", "totals", "theirs")
        async with tracker.track("42", function="send"):
            pass
        before = await redis_client.zscore(f"{namespace}:instances", instance_id)

        async def has_beaten() -> bool:
            return bool(await redis_client.zscore(f"{namespace}:instances", instance_id) > before)

        await wait_until(has_beaten, description="it beats")
        assert not tracker.is_behind
