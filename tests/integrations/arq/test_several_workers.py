"""Several arq workers of one tracker, one after the other or at once: each is an instance, and facts of one stay its own."""

import asyncio
import json
import sys
import threading
from typing import Any

import pytest
from arq.connections import ArqRedis
from arq.jobs import Job
from arq.worker import Worker

from async_tracker import RecoveryAction, current_job
from tests.harness.judgement import declare_dead
from tests.harness.wait import wait_until
from tests.harness.workers import Workers
from tests.integrations.arq.running import open_pool, result_of, wait_for_end
from tests.integrations.arq.test_what_arq_reads import rows


async def whose(ctx):
    job = current_job()
    assert job is not None
    await job.ensure_owned()
    return job.instance_id, ctx["async_tracker"].instance_id, job.queue


async def hang(ctx):
    await asyncio.sleep(60)


async def hold(ctx):
    await asyncio.sleep(60)


async def quick(ctx):
    return current_job() is not None


def as_json(data):
    return json.dumps(data, default=str).encode()


async def test_each_of_two_settings_is_told_by_its_own_facts(tracker, observer, run_worker, pool):
    @tracker.install
    class Fast:
        functions = [quick, hang]  # noqa: RUF012 - as anybody writes it
        max_jobs = 50
        allow_abort_jobs = True

    @tracker.install
    class Slow:
        functions = [hold]  # noqa: RUF012
        max_jobs = 2
        retry_jobs = False
        job_serializer = as_json

    fast, slow = await run_worker(Fast, queue_name="fast"), await run_worker(Slow, queue_name="slow", job_deserializer=json.loads)
    await wait_until(has_instances(observer, 2), description="both are registered")
    found = {item.queue: (item.concurrency, item.functions) for item in await observer.instances()}
    assert found == {"fast": (50, ("quick", "hang")), "slow": (2, ("hold",))}
    aborted = await pool.enqueue_job("hang", _queue_name="fast")
    await wait_until(lambda: fast.worker.job_tasks, description="the job runs")
    assert await aborted.abort(timeout=10, poll_delay=0.02)
    await fast.stop()
    assert [item.queue for item in await observer.instances()] == ["slow"]
    assert tracker.instance_id == (await observer.instances())[0].instance_id
    assert rows(await observer.stats()) == {"hang": {"started": 1, "aborted": 1}}
    await slow.stop()


def has_instances(observer, number):
    async def has() -> bool:
        return bool(len(await observer.instances()) == number)

    return has


SETTINGS: dict[str, dict[str, Any]] = {
    "json": {"functions": [hold], "queue_name": "json", "job_serializer": as_json, "job_deserializer": json.loads},
    "pickle": {"functions": [hold], "queue_name": "pickle"},
}


@pytest.mark.parametrize("order", [("json", "pickle"), ("pickle", "json")])
@pytest.mark.parametrize("dying", ["json", "pickle"])
async def test_the_caller_who_awaits_a_quarantined_job_reads_its_error_whichever_settings_were_installed_last(
    make_tracker, observer, redis_client, redis_url, namespace, run_worker, order, dying
):
    """The worker that recovers is of other settings than the one that died, and of the same module."""
    (living,) = set(order) - {dying}
    tracker = make_tracker(max_recoveries=0, recover=False)
    installed = {name: tracker.install(SETTINGS[name]) for name in order}
    pool = await open_pool(redis_url, queue=dying)
    pool.job_serializer, pool.job_deserializer = SETTINGS[dying].get("job_serializer"), SETTINGS[dying].get("job_deserializer")
    worker = await run_worker(make_tracker(recover=False).install(SETTINGS[dying]), queue_name=dying, pool=pool)
    await pool.enqueue_job("hold", _job_id="42")
    await wait_until(lambda: observer.job("42"), description="the job is in flight")
    instance_id = (await observer.jobs())[0].instance_id
    await wait_until(lambda: declare_dead(redis_client, namespace, instance_id), description="its worker is declared dead")
    other = await run_worker(installed[living], queue_name=living)
    await wait_until(lambda: tracker.instance_id, description="the other one works")
    (done,) = await tracker.recover()
    assert done.action is RecoveryAction.QUARANTINED
    error = await result_of(Job("42", pool, dying, _deserializer=pool.job_deserializer))
    assert "died running it" in str(error)
    assert await tracker.drop_quarantined("42")
    worker.terminate()
    await worker.stop()
    await other.stop()


@pytest.mark.parametrize("shares", ["a pool each", "one pool"])
async def test_two_workers_at_once_are_two_instances_and_each_has_its_own_jobs(tracker, observer, run_worker, pool, redis_client, shares):
    given = {"pool": pool} if shares == "one pool" else {}
    settings = tracker.install({"functions": [whose, hold]})
    workers = {name: await run_worker(settings, queue_name=name, **given) for name in ("one", "two")}
    told = {}
    for name in workers:
        job = await pool.enqueue_job("whose", _queue_name=name)
        told[name] = await result_of(job)
        holding = await pool.enqueue_job("hold", _job_id=f"of {name}", _queue_name=name)
        assert holding is not None
    assert [queue for _, _, queue in told.values()] == ["one", "two"]
    assert all(of_job == of_tracker for of_job, of_tracker, _ in told.values())
    instances = {item.queue: item.instance_id for item in await observer.instances()}
    assert {name: instance_id for name, (instance_id, _, _) in told.items()} == instances

    async def both_are_listed() -> bool:  # and no other: on a slow machine those before them are listed too
        return {job.job_id for job in await observer.jobs()} == {f"of {name}" for name in workers}

    await wait_until(both_are_listed, description="both are in flight")
    for name, worker in workers.items():
        claim = await redis_client.get(f"arq:in-progress:of {name}")
        assert claim.decode().startswith(instances[name] + ":")
        worker._was_told = True
    first, second = workers.values()
    first.terminate()
    await asyncio.gather(first.task, return_exceptions=True)
    await wait_until(has_jobs(observer, 1), description="the first one's job is put back")
    assert (await observer.jobs())[0].instance_id == instances["two"]
    second.terminate()
    await asyncio.gather(second.task, return_exceptions=True)
    await wait_until(has_instances(observer, 0), timeout=20, description="both have left")
    assert await observer.orphans() == []


def has_jobs(observer, number):
    async def has() -> bool:
        return bool(len(await observer.jobs()) == number)

    return has


async def test_a_pool_goes_on_naming_claims_for_the_worker_that_stays(tracker, observer, run_worker, pool, redis_client):
    plain = pool.pipeline
    settings = tracker.install({"functions": [hold]})
    first, second = [Worker(**settings, redis_pool=pool, queue_name=name, burst=True, handle_signals=False) for name in ("one", "two")]
    await first.async_run()
    running = asyncio.create_task(second.async_run())
    await running
    await first.on_shutdown(first.ctx)
    assert pool.pipeline != plain
    (instance,) = await observer.instances()
    async with pool.pipeline() as pipe:
        await pipe.psetex("arq:in-progress:by hand", 10_000, b"1").execute()
    assert (await redis_client.getdel("arq:in-progress:by hand")).decode().startswith(instance.instance_id)
    await second.on_shutdown(second.ctx)
    assert pool.pipeline == plain
    assert "pipeline" not in vars(pool)


async def test_workers_that_were_killed_together_are_recovered_together(
    workers: Workers, observer, make_tracker, redis_url, namespace, redis_client, pool
):
    env = {"TEST_REDIS_URL": redis_url, "TEST_NAMESPACE": namespace}
    process = workers.start_program([sys.executable, "-m", "tests.integrations.arq.two_workers"], env=env)
    await wait_until(has_instances(observer, 2), timeout=30, description="both are registered")
    queues = [f"{name}:{namespace}" for name in ("one", "two")]
    for queue in queues:
        await pool.enqueue_job("hold", _job_id=f"of {queue}", _queue_name=queue)
    await wait_until(has_jobs(observer, 2), timeout=30, description="both jobs are in flight")
    assert sorted(job.queue for job in await observer.jobs()) == queues
    process.kill()

    async def is_recovered() -> bool:
        await observer.recover()
        return not await observer.instances() and not await observer.orphans()

    await wait_until(is_recovered, timeout=30, description="what they held is given back")
    for queue in queues:
        assert await redis_client.exists(f"arq:in-progress:of {queue}") == 0
        assert await redis_client.zscore(queue, f"of {queue}") is not None


async def test_one_run_after_the_other_is_one_instance_after_the_other(tracker, observer, pool):
    settings = tracker.install({"functions": [whose]})
    seen = set()
    for _ in range(3):
        worker = Worker(**settings, burst=True, redis_pool=pool, queue_name=pool.default_queue_name, handle_signals=False)
        job = await pool.enqueue_job("whose")
        await worker.async_run()
        instance_id, of_tracker, _ = await result_of(job)
        assert instance_id == of_tracker
        seen.add(instance_id)
        await worker.on_shutdown(worker.ctx)
        assert (tracker.instance_id, await observer.instances()) == (None, [])
    assert len(seen) == 3
    assert rows(await observer.stats()) == {"whose": {"started": 3, "succeeded": 3}}


async def test_one_that_never_called_its_shutdown_does_not_stand_in_the_way_of_the_next(tracker, observer, pool):
    settings = tracker.install({"functions": [whose]})
    for number in range(1, 4):
        worker = Worker(**settings, burst=True, redis_pool=pool, queue_name=pool.default_queue_name, handle_signals=False)
        job = await pool.enqueue_job("whose")
        await worker.async_run()
        instance_id, of_tracker, _ = await result_of(job)
        assert instance_id == of_tracker
        assert (await observer.stats()).started <= number
    await wait_until(has_instances(observer, 0), timeout=20, description="all of them have left by themselves")
    assert rows(await observer.stats()) == {"whose": {"started": 3, "succeeded": 3}}


async def test_two_threads_may_run_a_worker_each(make_tracker, observer, redis_url, pool):
    tracker = make_tracker()
    settings = tracker.install({"functions": [whose]})
    errors: list[BaseException] = []
    both_at_work = threading.Barrier(2, timeout=30)

    async def work(name: str) -> None:
        async with await thread_pool(redis_url, name) as own:
            worker = Worker(**settings, redis_pool=own, queue_name=name, poll_delay=0.05, handle_signals=False)
            running = asyncio.create_task(worker.async_run())
            job = await own.enqueue_job("whose")
            first = await result_of(job)
            await asyncio.to_thread(both_at_work.wait)
            instance_id, of_tracker, queue = await result_of(await own.enqueue_job("whose"))
            assert (instance_id, of_tracker, queue) == (first[0], instance_id, name)
            assert len(await tracker.instances()) == 2  # with a client of this loop
            await asyncio.to_thread(both_at_work.wait)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await worker.on_shutdown(worker.ctx)

    def thread(name: str) -> None:
        try:
            asyncio.run(work(name))
        except BaseException as exc:
            errors.append(exc)
            both_at_work.abort()

    threads = [threading.Thread(target=thread, args=(f"queue {number}",)) for number in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        await asyncio.to_thread(one.join, 60)
    assert errors == []
    assert (await observer.instances(), tracker.instance_id) == ([], None)
    stats = await observer.stats()
    assert (stats.started, stats.succeeded) == (4, 4)


async def thread_pool(url: str, queue: str) -> ArqRedis:
    return await open_pool(url, queue=queue)


async def test_what_asks_from_another_thread_asks_the_redis_of_the_worker(tracker, run_worker, pool, observer):
    """Without a Redis of its own the tracker has the worker's pool, which belongs to the worker's loop."""
    asked: list[Any] = []

    async def ask(ctx):
        def in_thread() -> list[str]:
            async def instances() -> list[str]:
                found = [item.instance_id for item in await tracker.instances()]
                await tracker._access.aclose()
                return found

            return asyncio.run(instances())

        asked.extend(await asyncio.to_thread(in_thread))
        return tracker.instance_id

    worker = await run_worker(tracker.install({"functions": [named(ask, "ask")]}))
    instance_id = await result_of(await pool.enqueue_job("ask"))
    assert asked == [instance_id]
    await wait_for_end(worker, 1)
    await worker.stop()


def named(function, name):
    function.__qualname__ = name
    return function


async def test_two_that_start_at_the_same_time_do_not_end_each_other(make_tracker, observer, run_worker, redis_url, pool):
    """With a Redis of its own the tracker first asks arq's who it is: meanwhile another worker may begin."""
    tracker = make_tracker(redis_options={"url": redis_url})
    settings = tracker.install({"functions": [whose]})
    both = await asyncio.gather(*[run_worker(settings, queue_name=name) for name in ("one", "two")])
    await wait_until(has_instances(observer, 2), description="both are registered")
    for name in ("one", "two"):
        instance_id, of_tracker, queue = await result_of(await pool.enqueue_job("whose", _queue_name=name))
        assert (instance_id, queue) == (of_tracker, name)
    for worker in both:
        await worker.stop()
    assert await observer.instances() == []


async def test_a_worker_that_starts_again_while_its_instance_leaves_is_tracked_anew(make_tracker, observer, pool):
    tracker = make_tracker(hook_timeout=5.0)
    settings = tracker.install({"functions": [whose]})
    worker = Worker(**settings, burst=True, redis_pool=pool, queue_name=pool.default_queue_name, handle_signals=False)
    await worker.async_run()
    leaving = asyncio.create_task(worker.on_shutdown(worker.ctx))
    await asyncio.sleep(0)  # it has begun to leave
    job = await pool.enqueue_job("whose")
    await worker.async_run()
    await leaving
    instance_id, of_tracker, _ = await result_of(job)
    assert instance_id == of_tracker == tracker.instance_id
    await worker.on_shutdown(worker.ctx)
    assert (await observer.instances(), worker.functions["whose"].coroutine) == ([], whose)
    assert rows(await observer.stats()) == {"whose": {"started": 1, "succeeded": 1}}
