"""Names of jobs, functions, queues and instances of every kind: what no key can hold is refused, and harms no other job."""

import asyncio

import hypothesis
import pytest
from hypothesis import strategies as st

from async_tracker import ConfigError, Tracker
from async_tracker.instance.runs import handle_of
from async_tracker.instance.runtime import Runtime
from async_tracker.store.scripts import SCRIPTS
from tests.crash.fleet import script_call
from tests.harness.inside import runtime_of
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

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


async def assert_that_a_beat_is_taken(runtime: Runtime) -> None:
    """Beat now, and see Redis take it: its time of the last beat grows."""
    redis, instance_id = runtime.link.redis, runtime.instance_id
    before = await redis.zscore("instances", instance_id)
    await asyncio.sleep(0.002)
    await runtime.registration.beat()
    assert await redis.zscore("instances", instance_id) > before
    assert not runtime.registration.is_behind


async def written_beside(tracker: Tracker, *, job_id: str, function: str, queue: str, message: str, args: str) -> None:
    """A worker library hands over whatever it was handed, and another job runs beside it."""
    runtime = runtime_of(tracker)
    odd = runtime.start_run(job_id, function=function, queue=queue, args=args)
    other = runtime.start_run("another job")
    handle_of(odd).progress(0.5, message)
    await wait_until(lambda: odd.stored and other.stored, description="both are written")
    await assert_that_a_beat_is_taken(runtime)
    assert await tracker.job("another job") is not None
    runtime.finish_run(odd, "succeeded")
    runtime.end_run(other)
    await wait_until(lambda: not runtime.journal.has_work, description="the ends are taken")
    await assert_that_a_beat_is_taken(runtime)  # and written: a beat waits for the pen
    assert await runtime.store.listed_jobs(runtime.instance_id) == []


def test_whatever_the_names_of_a_job_contain_it_and_the_others_are_written(redis_url, namespace):
    with asyncio.Runner() as runner:
        beats = {"heartbeat_interval": 60, "heartbeat_ttl": 600, "silence_limit": 600}
        tracker = Tracker(namespace=namespace, redis_options={"url": redis_url}, gather=0.002, linger=0.0, **beats)
        registered = tracker.register()
        runner.run(registered.__aenter__())

        @hypothesis.settings(max_examples=50)
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


async def test_a_second_try_is_on_its_way_before_its_function_begins_also_where_a_beat_has_not_been_answered(make_tracker, wire):
    tracker = make_tracker(redis_options={"url": wire.url}, **QUIET)
    async with tracker.register():
        runtime = runtime_of(tracker)
        held = wire.hold(script_call(SCRIPTS["beat"]))
        beat = asyncio.create_task(runtime.registration.beat())
        await wait_until(lambda: held.caught, description="the beat is under way")
        run = runtime.start_run("42", function="die")
        assert runtime.writer.hurry(run)
        waiting = asyncio.create_task(runtime.wait_stored(run))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not waiting.done(), "the function begins, and its start is not on its way"
        held.release()
        await waiting
        assert run.sent
        await beat
        runtime.end_run(run)
