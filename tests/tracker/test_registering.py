"""``register``, ``track`` and ``current_job`` in any asyncio code."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from async_tracker import ConfigError, StorageUnavailable, TrackerError, current_job
from async_tracker.instance.runs import current
from tests.harness.servers import assert_no_leaks
from tests.harness.wait import wait_until

STRANGE_IDS = ["two words", "a:b:c", "*", "{tag}", "line\nbreak", "naïve-ключ-🔑", "'quoted\"", "back\\slash", "?[a-z]", "x" * 500, " "]


def in_hand():
    """The id of the current job, or None."""
    job = current_job()
    return job and job.job_id


async def test_an_instance_is_registered_while_its_block_runs(tracker, redis_client, namespace):
    async with tracker.register(queue="mail", concurrency=10, functions=["send"]) as instance_id:
        (instance,) = await tracker.instances()
        assert (instance.instance_id, instance.state, instance.queue, instance.concurrency) == (instance_id, "alive", "mail", 10)
        assert (instance.functions, instance.library, tracker.instance_id) == (("send",), "asyncio", instance_id)
    assert await tracker.instances() == []
    assert tracker.instance_id is None
    await assert_no_leaks(redis_client, namespace)


async def test_a_label_is_a_prefix_and_two_starts_have_two_ids(make_tracker):
    tracker = make_tracker(instance_id="pod-7")
    async with tracker.register() as first:
        pass
    async with tracker.register() as second:
        (instance,) = await tracker.instances()
    assert first != second
    assert first.startswith("pod-7:")
    assert instance.label == "pod-7"


async def test_a_tracker_is_one_instance_at_a_time(tracker):
    async with tracker.register():
        with pytest.raises(TrackerError, match="make another Tracker"):
            async with tracker.register():
                raise AssertionError("it was registered twice")


async def test_tracking_needs_an_instance(tracker):
    with pytest.raises(TrackerError, match=r"async with tracker\.register"):
        async with tracker.track("42"):
            raise AssertionError("it was tracked without an instance")


async def test_a_job_is_in_flight_until_its_block_ends(tracker):
    async with tracker.register(), tracker.track("42", function="send", queue="mail", timeout=9.0) as handle:
        await handle.progress(0.5, "half way")
        (job,) = await wait_until(tracker.jobs, description="the job is in flight")
        assert (job.job_id, job.function, job.queue, job.timeout) == ("42", "send", "mail", 9.0)
        assert (await tracker.job("42")).instance_id == tracker.instance_id
        assert len(await tracker.jobs(function="send")) == 1
        assert await tracker.jobs(function="other") == []
        assert len(await tracker.jobs(tracker.instance_id)) == 1

        async def shows_progress():
            found = await tracker.job("42")
            return (found.progress, found.progress_message) == (0.5, "half way")

        await wait_until(shows_progress, description="the progress is written")
    await tracker.aclose()
    assert await tracker.job("42") is None
    assert await tracker.jobs() == []


@pytest.mark.parametrize("job_id", STRANGE_IDS)
async def test_a_strange_id_is_an_id_like_any_other(tracker, redis_client, namespace, job_id):
    async with tracker.register(queue=job_id):
        async with tracker.track(job_id, function=job_id):
            (job,) = await wait_until(tracker.jobs, description="the job is in flight")
            assert (job.job_id, job.function) == (job_id, job_id)
            assert (await tracker.job(job_id)).job_id == job_id
            assert (await tracker.instances())[0].queue == job_id
        await wait_until(lambda: nothing_in_flight(tracker), description="its end is written")
    await assert_no_leaks(redis_client, namespace)


async def nothing_in_flight(tracker):
    return not await tracker.jobs()


@pytest.mark.parametrize("label", ["two words", "a:b", "*", "{tag}", "naïve-🔑"])
async def test_a_strange_label_or_namespace_is_one_like_any_other(make_tracker, redis_client, label):
    tracker = make_tracker(instance_id=label, namespace=f"test {label}")
    async with tracker.register() as instance_id, tracker.track("42"):
        (job,) = await wait_until(tracker.jobs, description="the job is in flight")
        assert job.instance_id == instance_id
        assert (await tracker.instance(instance_id)).label == label
    keys = [key.decode() async for key in redis_client.scan_iter()]
    assert [key for key in keys if not key.startswith(f"test {label}:")] == []


async def test_what_a_block_raises_passes_and_is_its_outcome(tracker):
    async with tracker.register():
        with pytest.raises(ZeroDivisionError):
            async with tracker.track("1", function="f"):
                raise ZeroDivisionError
        with pytest.raises(asyncio.CancelledError):
            async with tracker.track("2", function="f"):
                raise asyncio.CancelledError
        async with tracker.track("3", function="f"):
            assert in_hand() == "3"
    stats = await tracker.stats("f")
    assert (stats.started, stats.failed, stats.cancelled, stats.succeeded) == (3, 1, 1, 1)


async def test_the_job_in_hand_is_known_in_tasks_and_threads_and_nowhere_else(tracker):
    assert current_job() is None
    async with tracker.register():
        async with tracker.track("outer"):
            assert in_hand() == "outer"
            assert await asyncio.to_thread(in_hand) == "outer"
            assert (await asyncio.create_task(in_a_task())) == "outer"
            async with tracker.track("inner"):
                assert in_hand() == "inner"
            assert in_hand() == "outer"
            with ThreadPoolExecutor(1) as pool:
                assert await asyncio.get_running_loop().run_in_executor(pool, current_job) is None
        assert current_job() is None


async def in_a_task():
    return in_hand()


async def test_jobs_at_once_each_know_their_own(tracker):
    async def work(number):
        async with tracker.track(str(number)):
            await asyncio.sleep(0)
            return in_hand()

    async with tracker.register():
        assert await asyncio.gather(*map(work, range(50))) == [str(number) for number in range(50)]


async def test_a_second_run_of_an_id_is_shown_and_the_older_counted_as_superseded(tracker):
    async with tracker.register(), tracker.track("42", job_try=1):
        await wait_until(tracker.jobs, description="the older run is in flight")
        async with tracker.track("42", job_try=2) as newer:

            async def shows_the_newer():
                found = await tracker.job("42")
                return found is not None and (found.job_try, found.run, found.superseded) == (2, newer.run, 1)

            await wait_until(shows_the_newer, description="the newer run is shown")


async def test_the_end_of_an_older_run_does_not_erase_the_newer(tracker):
    async with tracker.register():
        older = tracker.track("42", job_try=1)
        await older.__aenter__()
        await wait_until(tracker.jobs, description="the older run is in flight")
        async with tracker.track("42", job_try=2):
            await older.__aexit__(None, None, None)

            async def is_shown() -> bool:
                return [job.job_try for job in await tracker.jobs()] == [2]

            await wait_until(is_shown, description="the newer run is shown")
            await asyncio.sleep(0.05)  # more than twenty lingers
            assert await is_shown()
    current.set(None)  # runs that end in another order than they began leave one of them in hand, in the task of all tests


async def test_a_job_may_ask_whether_it_is_still_its_own(tracker):
    async with tracker.register(), tracker.track("42") as job:
        await job.ensure_owned()
        assert job.owned


async def test_two_namespaces_on_one_redis_do_not_see_each_other(make_tracker, namespace):
    first, second = make_tracker(), make_tracker(namespace=f"{namespace}2")
    async with first.register(), second.register(), first.track("42"):
        await wait_until(first.jobs, description="the job is in flight")
        assert await second.jobs() == []
        assert await second.job("42") is None
        assert [instance.instance_id for instance in await second.instances()] == [second.instance_id]
        assert await second.recover() == []
    assert (await second.stats()).started == 0


async def test_a_redis_that_is_away_stops_no_work_but_answers_no_question(make_tracker):
    tracker = make_tracker(redis_options={"host": "127.0.0.1", "port": 1})
    async with tracker.register(), tracker.track("42"):
        assert in_hand() == "42"
        for question in (tracker.instances, tracker.jobs, tracker.orphans, tracker.snapshot, tracker.stats, tracker.recover):
            with pytest.raises(StorageUnavailable) as unavailable:
                await question()
            assert unavailable.value.__cause__ is not None


async def test_listeners_are_told_only_of_events_that_exist(tracker):
    with pytest.raises(ConfigError, match="did you mean 'recovered'"):
        tracker.on("recoverd")(print)


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": "ten"},
        {"concurrency": 2.5},
        {"concurrency": True},
        {"concurrency": 0},
        {"concurrency": 10**400},
        {"functions": "send"},
        {"functions": ["send", None]},
        {"functions": 7},
        {"queue": b"mail"},
        {"queue": "\ud800"},
    ],
    ids=str,
)
async def test_an_argument_that_cannot_work_is_refused_before_anything_is_registered(tracker, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))) as refused:
        async with tracker.register(**wrong):
            pass
    assert isinstance(refused.value, TypeError)
    assert await tracker.instances() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"job_id": None},
        {"job_id": b"42"},
        {"function": 7},
        {"queue": 7},
        {"job_try": "two"},
        {"job_try": True},
        {"job_try": -1},
        {"timeout": "soon"},
        {"timeout": float("nan")},
        {"timeout": float("inf")},
        {"timeout": -1},
        {"timeout": 10**400},
    ],
    ids=str,
)
async def test_a_run_that_could_not_be_written_down_is_refused_before_it_starts(tracker, wrong):
    async with tracker.register():
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            async with tracker.track(**{"job_id": "42", **wrong}):
                pass
        assert await tracker.jobs() == []


async def test_questions_refuse_what_is_no_question(tracker):
    for since in ("yesterday", 7, b"1-0", float("nan")):
        with pytest.raises(ConfigError, match="since"):
            tracker.events(since)
    for count in (0, -1, "ten", 2.5):
        with pytest.raises(ConfigError, match="count"):
            await tracker.recent_events(count)
    with pytest.raises(ConfigError, match=r'write @tracker.on\("recovered"\)'):
        tracker.on(print)
    with pytest.raises(ConfigError, match="write a function"):
        tracker.on("recovered")(None)
