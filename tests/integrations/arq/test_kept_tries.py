"""Tries that are kept: what a deploy or a death of the worker interrupts is not counted by arq, and every loop ends."""

import asyncio
from typing import Any

import pytest
from arq import Retry, cron
from arq.worker import JobExecutionFailed, func

from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.recovery.adapter import Released
from async_tracker.store.run_record import RunRecord
from tests.harness.wait import wait_until
from tests.integrations.arq.running import RunningWorker, open_pool, result_of


class Interrupted:
    """A job that waits until its worker is told to stop. ``tries`` are those that it was told."""

    def __init__(self) -> None:
        self.tries: list[int] = []
        self.may_end = asyncio.Event()

    async def __call__(self, ctx: dict[str, Any]) -> str:
        self.tries.append(ctx["job_try"])
        await self.may_end.wait()
        return "done"


async def tries_of(redis_client: Any, job_id: str) -> int | None:
    counted = await redis_client.get(f"arq:retry:{job_id}")
    return int(counted) if counted is not None else None


async def leave(worker: RunningWorker) -> None:
    worker.terminate()
    await worker.stop()


async def result_by(worker: RunningWorker, queued: Any) -> Any:
    """Wait for the job's end, and for the worker to have heard of its own write of it: else its end may meet that."""
    result = await result_of(queued)
    await worker.idle()
    return result


async def begun(job: Interrupted, runs: int) -> None:
    await wait_until(lambda: len(job.tries) >= runs, description=f"run {runs} has begun")


def settings(tracker, job: Interrupted, *, max_tries: int | None = 5, more: dict[str, Any] | None = None) -> dict[str, Any]:
    return dict(tracker.install({"functions": [func(job.__call__, name="job", max_tries=max_tries)], **(more or {})}))


@pytest.mark.parametrize(("keep_tries", "tries"), [(False, [1, 2, 3]), (True, [1, 1, 1])])
async def test_a_run_that_a_deploy_interrupts_is_counted_only_where_tries_are_not_kept(
    make_tracker, run_worker, pool, redis_client, keep_tries, tries
):
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    for runs in (1, 2):
        worker = await run_worker(settings(make_tracker(keep_tries=keep_tries), job))
        await begun(job, runs)
        await leave(worker)
        assert await tries_of(redis_client, queued.job_id) == (0 if keep_tries else runs)
        assert await redis_client.exists(f"arq:in-progress:{queued.job_id}") == 0
    last = await run_worker(settings(make_tracker(keep_tries=keep_tries), job))
    job.may_end.set()
    assert await result_by(last, queued) == "done"
    assert job.tries == tries


async def test_a_cron_job_that_a_deploy_interrupts_is_not_counted(make_tracker, run_worker, redis_client):
    """arq lets the claim of a cron job expire, and does not delete it."""
    begun_as: list[str] = []

    async def job(ctx: dict[str, Any]) -> None:
        begun_as.append(ctx["job_id"])
        await asyncio.Event().wait()

    worker = await run_worker(
        make_tracker(keep_tries=True).install({"cron_jobs": [cron(job, name="cron", run_at_startup=True, max_tries=5)], "functions": []})
    )
    await wait_until(lambda: begun_as, description="the cron job has begun")
    await leave(worker)
    assert await tries_of(redis_client, begun_as[0]) == 0
    assert await redis_client.exists(f"arq:in-progress:{begun_as[0]}") == 1


async def test_a_loop_of_deploys_ends_and_says_from_when_on_tries_count(make_tracker, run_worker, pool, observer):
    """Twenty tries are kept; then arq counts two more, and fails the job as it does."""
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    for _ in range(30):
        worker = await run_worker(settings(make_tracker(keep_tries=True), job, max_tries=2))
        runs = len(job.tries)
        await wait_until(
            lambda runs=runs, worker=worker: len(job.tries) > runs or worker.worker.jobs_failed, description="it runs, or failed"
        )
        if worker.worker.jobs_failed:
            await worker.idle()  # it counts a failure before it writes it down
            break
        await leave(worker)
    error = await result_of(queued)
    assert isinstance(error, JobExecutionFailed)
    assert str(error) == "max 2 retries exceeded"
    assert job.tries == [1] * 21 + [2]
    told = [event for event in await observer.recent_events() if event.type == "tries_count"]
    assert [(event.job_id, event.function, event.details["job_try"]) for event in told] == [
        (queued.job_id, "job", 1),
        (queued.job_id, "job", 2),
    ]
    assert told[0].details == {"library": "arq", "job_try": 1, "max_tries": 2, "kept": 20}


async def test_a_job_that_is_to_run_once_never_runs_a_second_time_because_of_us(make_tracker, run_worker, pool):
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    worker = await run_worker(settings(make_tracker(keep_tries=True), job, max_tries=1))
    await begun(job, 1)
    await leave(worker)
    last = await run_worker(settings(make_tracker(keep_tries=True), job, max_tries=1))
    assert str(await result_by(last, queued)) == "max 1 retries exceeded"
    assert job.tries == [1]


async def test_where_arq_runs_nothing_again_no_try_is_given_back(make_tracker, run_worker, pool, redis_client, queue):
    """With ``retry_jobs=False`` a job that a deploy interrupts has failed, and a count that is given back would begin below 0."""
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    worker = await run_worker(settings(make_tracker(keep_tries=True), job), retry_jobs=False)
    await begun(job, 1)
    await leave(worker)
    assert await tries_of(redis_client, queued.job_id) is None
    assert await redis_client.zscore(queue, queued.job_id) is None


async def test_a_retry_that_a_job_asks_for_is_counted_and_the_deploy_after_it_is_not(make_tracker, run_worker, pool):
    tries: list[int] = []
    may_end = asyncio.Event()

    async def job(ctx: dict[str, Any]) -> str:
        tries.append(ctx["job_try"])
        if len(tries) == 1:
            raise Retry
        await may_end.wait()
        return "done"

    queued = await pool.enqueue_job("job")
    install = make_tracker(keep_tries=True).install
    worker = await run_worker(install({"functions": [func(job, name="job")]}))
    await wait_until(lambda: len(tries) == 2, description="the second run has begun")
    await leave(worker)
    may_end.set()
    last = await run_worker(make_tracker(keep_tries=True).install({"functions": [func(job, name="job")]}))
    assert await result_by(last, queued) == "done"
    assert tries == [1, 2, 2]


@pytest.mark.parametrize("kind", ["on_job_start", "on_job_end"])
async def test_a_deploy_in_the_middle_of_a_hook_is_not_counted_once_the_job_is_recovered(
    make_tracker, run_worker, pool, redis_client, kind
):
    """arq leaves its claim behind then: the job is an orphan, and its record tells the try and what it was allowed."""
    job = Interrupted()
    job.may_end.set()
    in_hook = asyncio.Event()

    async def hook(ctx: dict[str, Any]) -> None:
        in_hook.set()
        await asyncio.Event().wait()

    queued = await pool.enqueue_job("job")
    worker = await run_worker(settings(make_tracker(keep_tries=True), job, more={kind: hook}))
    await in_hook.wait()
    worker.terminate()
    await worker.end()
    assert await tries_of(redis_client, queued.job_id) == 1
    last = await run_worker(settings(make_tracker(keep_tries=True, sweep_interval=0.1), job))
    assert await result_by(last, queued) == "done"
    assert job.tries[-1] == 1


def writing() -> list[Any]:
    """Give arq's tasks that write down what became of a job: they outlive the cancellation of the job's own task."""
    return [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") == "Worker.finish_job"]


@pytest.mark.parametrize("where", ["finish", "after_job_end"])
async def test_a_deploy_that_meets_arqs_finish_or_the_hook_after_it_runs_nothing_again(
    make_tracker, run_worker, pool, redis_client, wire, queue, where
):
    """The function has ended: once that has reached Redis the job is over, and there is no try to be kept."""
    job, in_hook, is_written = Interrupted(), asyncio.Event(), asyncio.Event()
    job.may_end.set()

    async def after_job_end(ctx: dict[str, Any]) -> None:
        in_hook.set()
        await asyncio.Event().wait()

    async def on_shutdown(ctx: dict[str, Any]) -> None:
        await is_written.wait()  # arq's next step closes its connections, and what is still on its way is lost with them

    more = {"on_shutdown": on_shutdown, **({"after_job_end": after_job_end} if where == "after_job_end" else {})}
    held = wire.hold(lambda command: command[0] == b"ZREM" and command[1] == queue.encode()) if where == "finish" else None
    queued = await pool.enqueue_job("job", _job_id="1")
    worker = await run_worker(settings(make_tracker(keep_tries=True), job, more=more), pool=await open_pool(wire.url, queue=queue))
    if held is not None:
        await wait_until(lambda: held.caught, description="arq writes down that the job is done")
    else:
        await in_hook.wait()
    worker.terminate()
    await wait_until(lambda: all(task.done() for task in worker.worker.tasks.values()), description="its task has been cancelled")
    if held is not None:
        held.release()
    assert await result_of(queued) == "done"
    await wait_until(lambda: not writing(), description="arq has heard that it is written")
    is_written.set()
    await worker.end()
    left = await redis_client.exists("arq:retry:1", "arq:in-progress:1", "arq:job:1")
    assert (left, await redis_client.zscore(queue, "1")) == (0, None)
    assert not [key async for key in redis_client.scan_iter("*receipt:kept:*")]
    assert job.tries == [1]


async def test_a_second_deploy_while_arq_gives_its_claim_back_gives_the_try_back_once(
    make_tracker, run_worker, pool, redis_client, wire, queue
):
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    worker = await run_worker(settings(make_tracker(keep_tries=True), job), pool=await open_pool(wire.url, queue=queue))
    await begun(job, 1)
    held = wire.hold(lambda command: command[0] == b"DEL" and command[1] == f"arq:in-progress:{queued.job_id}".encode())
    worker.terminate()
    await wait_until(lambda: held.caught, description="arq gives its claim back")
    for task in list(worker.worker.tasks.values()):
        task.cancel()
    await asyncio.sleep(0)
    held.release()

    async def is_given_back() -> bool:
        return not await redis_client.exists(f"arq:in-progress:{queued.job_id}")

    await wait_until(is_given_back, description="the claim is given back")
    assert await tries_of(redis_client, queued.job_id) == 0
    await worker.end()


async def test_where_it_cannot_be_noted_arqs_count_stands_and_the_worker_leaves(
    make_tracker, run_worker, pool, redis_client, wire, queue, caplog
):
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    worker = await run_worker(settings(make_tracker(keep_tries=True), job), pool=await open_pool(wire.url, queue=queue))
    await begun(job, 1)
    wire.reply_with_error("NOPERM no permission", to=lambda command: command[0] in (b"EVALSHA", b"EVAL") and b"kept:" in command[3])
    await leave(worker)
    assert await tries_of(redis_client, queued.job_id) == 1
    assert "is counted although the worker was told to stop" in caplog.text


async def test_hooks_alone_cannot_keep_tries_and_say_so(make_tracker, run_worker, pool, redis_client, caplog):
    tracker = make_tracker(keep_tries=True)
    job = Interrupted()
    queued = await pool.enqueue_job("job")
    hooks = {name: getattr(tracker, name) for name in ("on_startup", "on_shutdown", "on_job_start", "on_job_end", "after_job_end")}
    worker = await run_worker({"functions": [func(job.__call__, name="job", max_tries=5)], **hooks})
    await begun(job, 1)
    await leave(worker)
    assert await tries_of(redis_client, queued.job_id) == 1
    assert "keep_tries is set, and tries are counted all the same" in caplog.text


# a worker that dies


def record(**facts: Any) -> RunRecord:
    return RunRecord(**{"job_id": "j", "instance_id": "dead", "token": "r", "library": "arq", "queue": "q", "started_at_ms": 1, **facts})


async def orphaned(redis_client, *, tries: int) -> None:
    await redis_client.set("arq:in-progress:j", "dead:r")
    await redis_client.zadd("q", {"j": 1})
    await redis_client.set("arq:job:j", b"payload")
    await redis_client.set("arq:retry:j", tries)


@pytest.mark.parametrize(
    ("facts", "counted", "left"),
    [
        pytest.param({"job_try": 2, "max_tries": 5, "keep_tries": 20}, 2, 1, id="with a record"),
        pytest.param({"job_try": 1, "max_tries": 5, "keep_tries": 20}, 2, 2, id="arq has counted another try since"),
        pytest.param({"job_try": 1, "max_tries": 1, "keep_tries": 20}, 1, 1, id="to run once"),
        pytest.param({}, 1, 1, id="without a record"),
        pytest.param({"job_try": 2, "max_tries": 5}, 2, 2, id="its worker keeps none"),
    ],
)
async def test_a_recovered_death_is_not_counted_where_the_record_tells_its_try(redis_client, facts, counted, left):
    await orphaned(redis_client, tries=counted)
    adapter = ArqAdapter(redis_client, receipt_key=str.encode)
    for _ in range(2):
        assert await adapter.release(record(**facts), delay=0.0) is Released.RELEASED
        assert await tries_of(redis_client, "j") == left
    await redis_client.delete("receipt:kept:j", "receipt:dead:r", "arq:job:j", "arq:retry:j", "q")


async def test_deaths_and_deploys_share_what_is_kept_and_an_old_one_does_not_count(redis_client):
    adapter = ArqAdapter(redis_client, receipt_key=str.encode, recovery_window=60.0)
    facts = {"job_try": 1, "max_tries": 5, "keep_tries": 2}
    assert await adapter.keep_try(record(token="a", **facts))
    assert await adapter.keep_try(record(token="a", **facts))
    assert await adapter.keep_try(record(token="b", **facts))
    assert not await adapter.keep_try(record(token="c", **facts))
    await orphaned(redis_client, tries=1)
    assert await adapter.release(record(**facts), delay=0.0) is Released.COUNTED
    assert await adapter.release(record(**facts), delay=0.0) is Released.COUNTED
    assert await tries_of(redis_client, "j") == 1
    await redis_client.hset("receipt:kept:j", "dead:a", 1)  # long ago
    assert await adapter.keep_try(record(token="c", **facts))
    assert sorted(await redis_client.hkeys("receipt:kept:j")) == [b"dead:b", b"dead:c"]
    assert 0 < await redis_client.pttl("receipt:kept:j") <= 60_000
    await redis_client.delete("receipt:kept:j", "receipt:dead:r", "arq:job:j", "arq:retry:j", "q")
