"""arq's own pool in a namespace: jobs are enqueued, run and answered there, and a whole worker knows no other keys."""

import copy
from typing import Any

import pytest
from arq import Worker, cron, func
from arq.connections import ArqRedis

from async_tracker.errors import UnsupportedCommand
from async_tracker.namespace import Namespace


@pytest.fixture
async def pool(redis_url):
    made = ArqRedis.from_url(redis_url)
    yield made
    await made.aclose()


async def double(ctx: dict[str, Any], number: int) -> int:
    return number * 2


async def test_enqueue_job_writes_in_the_namespace(pool, raw):
    ns: Any = Namespace(pool, "app")

    job = await ns.enqueue_job("double", 21, _job_id="1")

    assert job is not None
    assert sorted(raw.keys()) == [b"app:arq:job:1", b"app:arq:queue"]


async def test_a_whole_worker_runs_in_the_namespace(pool, raw):
    raw.zadd("arq:queue", {"decoy": 0})
    ns: Any = Namespace(pool, "app")
    job = await ns.enqueue_job("double", 21)
    ticked = cron(double_cron, run_at_startup=True)

    worker = Worker([func(double, name="double")], cron_jobs=[ticked], redis_pool=ns, burst=True, poll_delay=0.01, handle_signals=False)
    await worker.main()

    assert await job.result(timeout=2) == 42
    assert [result.function for result in await ns.all_job_results() if result.success] != []
    assert await ns.queued_jobs() == []
    assert worker.jobs_failed == 0
    assert {key for key in raw.scan_iter() if not key.startswith(b"app:")} == {b"arq:queue"}
    await worker.close()


async def double_cron(ctx: dict[str, Any]) -> int:
    return await double(ctx, 1)


async def test_settings_of_the_pool_are_its_own(redis_url):
    pool = ArqRedis.from_url(redis_url)
    pool.default_queue_name = "mail"
    ns: Any = Namespace(pool, "app")

    assert ns.default_queue_name == "mail"
    assert isinstance(ns, ArqRedis)
    with pytest.raises(UnsupportedCommand):
        await ns.flushdb()
    await pool.aclose()


async def test_a_copy_of_arqs_pool_has_what_that_adds_to_a_client(redis_url, namespace):
    pool = ArqRedis.from_url(redis_url)
    twin: Any = copy.copy(Namespace(pool, namespace))
    assert twin.default_queue_name == pool.default_queue_name
    await pool.aclose()
