"""What somebody else wrote where our records stand, and what arrives late: it harms nobody but itself."""

import asyncio
import json

import hypothesis
import pytest
from hypothesis import strategies as st

from async_tracker import ConfigError, Tracker
from async_tracker.instance.runs import handle_of
from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store
from tests.harness.judgement import declare_dead
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until

QUICK = {"heartbeat_interval": 0.2, "heartbeat_ttl": 2.0, "silence_limit": 4.0}


async def test_a_foreign_key_in_the_place_of_a_record_keeps_no_other_job_from_being_seen(tracker, redis_client, namespace):
    await redis_client.hset(f"{namespace}:job:42", "theirs", "1")
    async with tracker.register(), tracker.track("42"), tracker.track("43"):
        await wait_until(lambda: tracker.job("43"), description="the other job is seen")
        assert (await tracker.job("42")).job_id == "42"
    await assert_no_leaks(redis_client, namespace)


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


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(json.dumps({"schema": 1, "instance": "w", "run": "r", "started_at_ms": 10**18}), id="a time that no calendar has"),
        pytest.param(
            json.dumps({"schema": 1, "instance": "w", "run": "r", "started_at_ms": 5, "enqueued_at_ms": -(10**18)}), id="nor this"
        ),
        pytest.param("[" * 100_000, id="without a bottom"),
    ],
)
async def test_a_record_that_nobody_can_read_is_told_of_and_skipped(tracker, redis_client, namespace, raw):
    async with tracker.register() as instance_id, tracker.track("43"):
        await wait_until(lambda: tracker.job("43"), description="the job is seen")
        await redis_client.set(f"{namespace}:job:42", raw.replace('"w"', json.dumps(instance_id)))
        await redis_client.sadd(f"{namespace}:jobs:{instance_id}", "42")
        snapshot = await tracker.snapshot()
    assert [job.job_id for job in snapshot.jobs] == ["43"]
    assert snapshot.corrupt == ("job:42",)


async def test_a_mark_that_is_no_time_does_not_stop_the_queries(tracker, redis_client, namespace):
    await redis_client.hset(f"{namespace}:gone", "stranger", "yes")
    async with tracker.register() as instance_id:
        assert [instance.instance_id for instance in await tracker.instances()] == [instance_id]


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
            run = left._runtime.start_run("42", function="send")
            await wait_until(lambda: left.job("42"), description="the job is seen")
            assert run.in_flight
        await wait_until(lambda: watching.orphans(), description="it is an orphan")

        async def gone() -> bool:
            return not await redis_client.exists(f"{namespace}:job:42")

        await wait_until(gone, description="its record is gone")
    await assert_no_leaks(redis_client, namespace)


HALF = "\ud800"


async def test_half_a_character_is_refused_with_what_to_write_instead_and_harms_no_other_job(tracker, make_tracker):
    for setting in ({"queue": HALF}, {"instance_id": HALF}, {"tags": (HALF,)}, {"namespace": HALF}):
        with pytest.raises(ConfigError, match="surrogate"):
            make_tracker(**setting)
    with pytest.raises(ConfigError, match="functions="):
        async with tracker.register(functions=[HALF]):
            pass
    async with tracker.register():
        for job_id, names in ((HALF, {}), ("42", {"function": HALF}), ("42", {"queue": HALF})):
            with pytest.raises(ConfigError, match="write text"):
                async with tracker.track(job_id, **names):
                    pass
        async with tracker.track("43"):
            assert await wait_until(lambda: tracker.job("43"), description="the job is seen")


any_text = st.text(alphabet=st.characters(exclude_categories=()), max_size=20)  # lone surrogates as well


async def written_beside(tracker: Tracker, *, job_id: str, function: str, queue: str, message: str, args: str) -> None:
    """A worker library hands over whatever it was handed, and another job runs beside it."""
    runtime = tracker._runtime
    assert runtime is not None
    odd = runtime.start_run(job_id, function=function, queue=queue, args=args)
    other = runtime.start_run("another job")
    handle_of(odd).progress(0.5, message)
    await wait_until(lambda: odd.stored and other.stored, description="both are written")
    assert (await runtime.heartbeat.beat()).status == 1
    assert await tracker.job("another job") is not None
    runtime.finish_run(odd, "succeeded")
    runtime.end_run(other)
    await wait_until(lambda: not runtime.journal.has_work, description="the ends are taken")
    assert (await runtime.heartbeat.beat()).status == 1  # and written: a beat waits for the pen
    assert await runtime.store.listed_jobs(runtime.instance_id) == []


def test_whatever_the_names_of_a_job_contain_it_and_the_others_are_written(redis_url, namespace):
    with asyncio.Runner() as runner:
        tracker = Tracker(
            namespace=namespace, redis_options={"url": redis_url}, heartbeat_interval=60, heartbeat_ttl=600, silence_limit=600
        )
        registered = tracker.register()
        runner.run(registered.__aenter__())

        @hypothesis.settings(max_examples=100)
        @hypothesis.example(job_id=HALF, function=HALF, queue=HALF, message=HALF, args=HALF)
        @hypothesis.example(job_id="\udcff", function="\0", queue="\r\n", message="\udcff" + HALF, args="{}")
        @hypothesis.given(job_id=any_text, function=any_text, queue=any_text, message=any_text, args=any_text)
        def holds(**names: str) -> None:
            runner.run(written_beside(tracker, **names))

        try:
            holds()
        finally:
            runner.run(registered.__aexit__(None, None, None))
            runner.run(tracker.aclose())


async def test_a_name_that_is_none_is_refused_at_once_and_harms_no_other_job(tracker):
    def send() -> None: ...

    with pytest.raises(TypeError, match="functions="):
        async with tracker.register(functions=[send]):
            pass
    async with tracker.register():
        for wrong in ({"function": send}, {"queue": 5}, {"job_try": "1"}, {"timeout": "5s"}):
            with pytest.raises(TypeError, match=next(iter(wrong))):
                async with tracker.track("42", **wrong):
                    pass
        async with tracker.track("43", function="send", timeout=5):
            await asyncio.wait_for(wait_until(lambda: tracker.job("43"), description="the job is seen"), 20)
