"""``tracker.install``: what it takes, what it leaves alone, and that a worker behaves as it would without it."""

import asyncio
from typing import Any, ClassVar

import pytest
from arq import ArqRedis, cron
from arq.worker import func
from redis.asyncio.client import Pipeline

from async_tracker import ConfigError, Tracker, current_job
from tests.harness.wait import wait_until
from tests.integrations.arq.running import result_of, wait_for_end

HOOKS = ("on_startup", "on_shutdown", "on_job_start", "on_job_end", "after_job_end")


async def has_started(tracker):
    await wait_until(lambda: tracker.instance_id, description="the worker's hook has made its instance")


async def greet(ctx, name="world"):
    return f"hello {name}"


async def ping(ctx):
    return current_job()


async def test_a_class_is_installed_into_in_place_and_with_or_without_parentheses(tracker, make_tracker):
    class Settings:
        functions: ClassVar = [greet]

    class Others:
        functions: ClassVar = [greet]

    assert tracker.install(Settings) is Settings
    assert make_tracker().install()(Others) is Others
    assert {name for name in HOOKS if name in vars(Settings)} == set(HOOKS)


async def test_a_dict_is_copied_and_left_as_it_was(tracker):
    settings: dict[str, Any] = {"functions": [greet], "max_jobs": 3}
    installed = tracker.install(settings)
    assert settings == {"functions": [greet], "max_jobs": 3}
    assert installed["max_jobs"] == 3
    assert set(HOOKS) <= set(installed)


async def test_installing_twice_changes_nothing(tracker):
    once = tracker.install({"functions": [greet], "on_startup": ping})
    assert tracker.install(once) == once


async def test_a_job_is_counted_once_where_its_settings_were_installed_into_twice(tracker, observer, run_worker, pool):
    worker = await run_worker(tracker.install(tracker.install({"functions": [greet]})))
    await result_of(await pool.enqueue_job("greet"))
    await worker.stop()
    assert ((await observer.stats()).started, (await observer.stats()).succeeded) == (1, 1)


@pytest.mark.parametrize(
    "item", [func(greet, name="renamed", timeout=7, keep_result=9, max_tries=2), func(greet, name="forever", keep_result_forever=True)]
)
async def test_what_a_function_was_given_stays(tracker, run_worker, item):
    worker = await run_worker(tracker.install({"functions": [item]}))
    await has_started(tracker)
    wrapped = worker.worker.functions[item.name]
    for name in ("name", "timeout_s", "keep_result_s", "keep_result_forever", "max_tries"):
        assert getattr(wrapped, name) == getattr(item, name)
    assert (wrapped is item, item.coroutine, wrapped.coroutine.__name__) == (False, greet, "greet")
    await worker.stop()
    assert worker.worker.functions == {item.name: item}


async def test_what_a_cron_job_was_given_stays_and_the_original_is_left_alone(tracker, run_worker):
    original = cron(greet, hour={3}, minute=30, unique=False, timeout=5, job_id="nightly")
    worker = await run_worker(tracker.install({"cron_jobs": [original]}))
    await has_started(tracker)
    (wrapped,) = worker.worker.functions.values()
    assert (wrapped is original, original.coroutine) == (False, greet)
    own = {"coroutine", "next_run"}  # arq writes down when it queues it next in its list of cron jobs, which is left alone
    assert {name: value for name, value in vars(wrapped).items() if name not in own} == {
        name: value for name, value in vars(original).items() if name not in own
    }
    assert worker.worker.cron_jobs[0] is original


async def test_a_function_may_be_a_dotted_path(tracker, run_worker, pool):
    path = "tests.integrations.arq.test_install.greet"
    await run_worker(tracker.install({"functions": [path]}))
    assert await result_of(await pool.enqueue_job(path, "arq")) == "hello arq"


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"only": {"greet"}, "ignore": {"ping"}}, "only= or ignore=, not both"),
        ({"only": "greet"}, r"must be a set of function names: write only=\{\"greet\"\}"),
        ({"ignore": {"ping": True, b"pong": True}}, r"ignore= has b'pong' in it, and must be a set of function names, as text"),
        ({"only": [greet]}, r'only= has <function greet .*, as text: write only=\{"greet"\}'),
        ({"only": 7}, r'only=7 must be a set of function names: write only=\{"send_email"\}'),
        ({"ignore": True}, "ignore=True must be a set of function names"),
    ],
)
async def test_a_choice_that_cannot_be_meant_is_refused_with_what_to_write(tracker, arguments, complaint):
    with pytest.raises(ConfigError, match=complaint):
        tracker.install({"functions": [greet, ping]}, **arguments)


@pytest.mark.parametrize("settings", [greet, 7, "tests.WorkerSettings"])
async def test_what_is_no_worker_settings_is_refused(tracker, settings):
    with pytest.raises(ConfigError, match=r"write @tracker\.install above the class"):
        tracker.install(settings)


@pytest.mark.parametrize("choice", [{"ignore": {"ping"}}, {"only": {"greet"}}])
async def test_an_ignored_function_runs_and_is_nowhere_seen(tracker, observer, run_worker, pool, choice):
    worker = await run_worker(tracker.install({"functions": [greet, ping]}, **choice))
    assert await result_of(await pool.enqueue_job("ping")) is None  # it has no current job
    assert await result_of(await pool.enqueue_job("greet")) == "hello world"
    await worker.stop()
    stats = await observer.stats()
    assert ([row.function for row in stats.functions], stats.started) == (["greet"], 1)


async def test_an_ignored_function_that_runs_is_not_in_flight(tracker, observer, run_worker, pool):
    running, may_end = asyncio.Event(), asyncio.Event()

    async def ignored(ctx):
        running.set()
        await may_end.wait()

    await run_worker(tracker.install({"functions": [func(ignored, name="ignored")]}, ignore={"ignored"}))
    job = await pool.enqueue_job("ignored")
    await asyncio.wait_for(running.wait(), 10)
    await wait_until(observer.instances, description="the instance is registered")
    await asyncio.sleep(0.1)  # more than fifty lingers
    assert await observer.jobs() == []
    may_end.set()
    await result_of(job)


def recording_hooks(log):
    """Hooks that note their name and what of the ctx they can see."""

    def hook(name):
        async def recorded(ctx):
            own = {"async_tracker"} | {key for key in ctx if str(key).startswith("async_tracker")}
            log.append((name, sorted(set(ctx) - own, key=str), ctx.get("job_id")))
            if name == "on_startup":
                ctx["mine"] = "kept"

        return recorded

    return {name: hook(name) for name in HOOKS}


async def test_the_users_hooks_are_called_as_they_would_be_without_us(tracker, run_worker, pool):
    async def story(install):
        log: list[Any] = []
        worker = await run_worker(install({"functions": [greet], **recording_hooks(log)}))
        await result_of(await pool.enqueue_job("greet", _job_id="the job"))
        await wait_until(lambda: len(log) == 4, description="the job's last hook was called")
        await worker.stop()
        await pool.delete("arq:result:the job")
        return log

    without_us = await story(dict)
    assert await story(tracker.install) == without_us
    assert [entry[0] for entry in without_us] == ["on_startup", "on_job_start", "on_job_end", "after_job_end", "on_shutdown"]


@pytest.mark.parametrize("culprit", HOOKS)
async def test_a_users_hook_that_raises_does_what_it_would_have_done_without_us(tracker, observer, run_worker, pool, redis_client, culprit):
    async def raising(ctx):
        raise LookupError(culprit)

    async def story(install):
        worker = await run_worker(install({"functions": [greet], culprit: raising}))
        if culprit != "on_startup":
            job = await pool.enqueue_job("greet", _job_id="the job")
        if culprit == "on_shutdown":
            await result_of(job)
            closed = await asyncio.gather(worker.stop(), return_exceptions=True)
        else:
            await worker.wait()
            closed = await asyncio.gather(worker.stop(), return_exceptions=True)
        left = {key: await redis_client.type(key) async for key in redis_client.scan_iter("arq:*")}
        await redis_client.delete(*left, pool.default_queue_name)
        worker.worker.on_shutdown = None
        return repr(worker.error), repr(closed), left

    assert await story(dict) == await story(tracker.install)
    await observer.recover()


@pytest.mark.parametrize("is_looked_at", [False, True])
async def test_what_a_user_hook_that_raises_interrupts_is_recovered_as_an_orphan(
    make_tracker, observer, run_worker, pool, redis_client, monkeypatch, is_looked_at
):
    """arq's worker ends and leaves its claim for 310 s: its end in order gives the job back."""
    tracker = make_tracker()
    if not is_looked_at:  # neither the writer nor the pulse sees the run before arq has forgotten its task
        tracker = make_tracker(linger=60.0)
        monkeypatch.setattr("async_tracker.instance.pulse.TICK_SECONDS", 60.0)

    async def raising(ctx):
        raise LookupError

    worker = await run_worker(tracker.install({"functions": [greet], "on_job_end": raising}))
    job = await pool.enqueue_job("greet")
    await worker.wait()
    await worker.stop()
    (orphan,) = await observer.orphans()
    assert orphan.job_id == job.job_id
    (recovered,) = await observer.recover()
    assert (recovered.job_id, recovered.action) == (job.job_id, "recovered")
    assert await redis_client.exists(f"arq:in-progress:{job.job_id}") == 0


async def test_a_job_finds_its_tracker_in_its_ctx_and_may_hand_the_ctx_on_as_keywords(tracker, run_worker, pool):
    def only_keywords(**keywords):
        return keywords

    async def look(ctx):
        return ctx["async_tracker"] is tracker, only_keywords(**ctx)["job_id"] == ctx["job_id"]

    await run_worker(tracker.install({"functions": [func(look, name="look")]}))
    assert await result_of(await pool.enqueue_job("look")) == (True, True)


async def test_arguments_are_recorded_only_when_asked_for(make_tracker, observer, run_worker, pool):
    async def shown_as(**settings):
        running, may_end = asyncio.Event(), asyncio.Event()

        async def send(ctx, *args, **kwargs):
            running.set()
            await may_end.wait()

        worker = await run_worker(make_tracker(**settings).install({"functions": [func(send, name="send")]}))
        job = await pool.enqueue_job("send", "a@b", token="secret")
        await asyncio.wait_for(running.wait(), 10)
        (found,) = await wait_until(observer.jobs, description="the job is in flight")
        may_end.set()
        await result_of(job)
        await worker.stop()
        return found.args

    assert await shown_as() is None
    assert await shown_as(record_args=True) == "'a@b', token='secret'"
    assert await shown_as(record_args=True, redact=lambda text: text.replace("secret", "…")) == "'a@b', token='…'"
    assert await shown_as(record_args=True, redact=lambda text: text[10_000]) == "<arguments cannot be shown: IndexError>"


async def test_two_trackers_in_one_worker_both_see_its_jobs(make_tracker, namespace, run_worker, pool, redis_url):
    first, second = make_tracker(), make_tracker(namespace=f"{namespace}_two")
    worker = await run_worker(first.install(second.install({"functions": [greet]})))
    assert await result_of(await pool.enqueue_job("greet")) == "hello world"
    assert first.instance_id != second.instance_id
    assert [one.wrapping.strangers() for tracker in (first, second) for one in tracker._hooks.workers] == [[], []]
    await wait_for_end(worker, 1)
    await worker.stop()
    for tracker in (first, second):
        async with Tracker(namespace=tracker.namespace, redis_options={"url": redis_url}) as queries:
            stats = await queries.stats()
            assert (stats.started, stats.succeeded, await queries.instances()) == (1, 1, [])


async def test_a_pool_that_outlives_its_worker_makes_plain_claims_again(tracker, run_worker, redis_client, redis_url, queue, pool):
    original = pool.pipeline
    worker = await run_worker(tracker.install({"functions": [greet]}), pool=pool)
    await result_of(await pool.enqueue_job("greet"))
    assert pool.pipeline != original
    await worker.stop()
    assert pool.pipeline == original


class Listening(Pipeline):
    """A pipeline of the user's own that hears of every command, as a tracing library's does."""

    heard: ClassVar[list[Any]] = []

    def execute_command(self, *args, **kwargs):
        self.heard.append(args)
        return super().execute_command(*args, **kwargs)


class ListeningRedis(ArqRedis):
    def pipeline(self, transaction=True, shard_hint=None):
        return Listening(self.connection_pool, self.response_callbacks, transaction, shard_hint)


async def test_a_pipeline_of_the_users_own_hears_of_the_claim(tracker, run_worker, pool):
    Listening.heard.clear()
    listening = ListeningRedis(pool.connection_pool, default_queue_name=pool.default_queue_name)
    await run_worker(tracker.install({"functions": [greet]}), pool=listening)
    job = await pool.enqueue_job("greet")
    await result_of(job)
    (claim,) = [args for args in Listening.heard if args[0] == "PSETEX"]
    assert claim[1] == f"arq:in-progress:{job.job_id}"
    assert claim[3].startswith(f"{tracker.instance_id}:")


@pytest.mark.parametrize("begins", [False, True])
async def test_a_claim_is_named_whether_or_not_its_pipeline_was_told_to_begin(tracker, run_worker, pool, redis_client, begins):
    """arq watches first, and begins its transaction itself; whoever claims by hand need not."""
    await run_worker(tracker.install({"functions": [greet]}), pool=pool)
    await wait_until(lambda: tracker.instance_id, description="the tracker has started")
    async with pool.pipeline() as pipe:
        if begins:
            pipe.multi()
        pipe.psetex("arq:in-progress:by hand", 10_000, b"1").psetex("other", 10_000, b"1").psetex(b"arq:in-progress:bytes", 10_000, b"1")
        assert await pipe.execute() == [True, True, True]
    claim, other, as_bytes = await redis_client.mget("arq:in-progress:by hand", "other", "arq:in-progress:bytes")
    assert claim.decode().startswith(f"{tracker.instance_id}:")
    assert (other, as_bytes) == (b"1", b"1")
    assert 0 < await redis_client.pttl("arq:in-progress:by hand") <= 10_000
    await redis_client.delete("arq:in-progress:by hand", "other", "arq:in-progress:bytes")


async def test_functions_that_are_decorated_keep_what_their_decorator_wrote(tracker, run_worker):
    async def decorated(ctx):
        return 1

    decorated.note = "kept"  # type: ignore[attr-defined]
    worker = await run_worker(tracker.install({"functions": [func(decorated, name="decorated")]}))
    await has_started(tracker)
    wrapped = worker.worker.functions["decorated"].coroutine
    assert (wrapped is decorated, wrapped.note) == (False, "kept")
