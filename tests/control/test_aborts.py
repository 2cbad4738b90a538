"""Real arq workers that abort a job: what becomes of it, of the caller who awaits it, and of the same id afterwards."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
import redis.asyncio
from arq import Retry, func
from arq.connections import ArqRedis
from arq.jobs import Job

from async_tracker import AbortOutcome, OrderFailed, Tracker, UnsupportedControl
from async_tracker.control.aborting import Meant, abort
from async_tracker.integrations.arq.adapter import ArqAdapter
from async_tracker.recovery.adapter import Released
from async_tracker.store.run_record import RunRecord
from tests.cli.conftest import Cli
from tests.harness.inside import abort_soon
from tests.harness.wait import wait_until
from tests.integrations.arq.running import RunningWorker, result_of

LONG = 30.0
"""Seconds that an end may take on a busy machine; a test in which the run goes on waits shorter."""
SHORT = 0.2


class Work:
    """One function, `job`, that waits and answers a cancellation as it is told. ``seen`` is what happened in it."""

    def __init__(self, answer: Callable[[], Any] | None = None) -> None:
        self.answer = answer
        self.seen: list[str] = []
        self.may_end = asyncio.Event()

    async def job(self, ctx: dict[str, Any]) -> str:
        self.seen.append(f"begun {ctx['job_try']}")
        try:
            await self.may_end.wait()
        except asyncio.CancelledError:
            self.seen.append("cancelled")
            if self.answer is None:
                raise
            await self.answer()
        finally:
            self.seen.append("finally")
        return "done"

    def settings(self, tracker: Tracker, **more: Any) -> Any:
        return tracker.install({"functions": [func(self.job, name="job")], **more})

    async def begun(self, times: int = 1) -> None:
        def has_begun() -> bool:
            return sum(entry.startswith("begun") for entry in self.seen) >= times

        await wait_until(has_begun, description=f"the job has begun {times} times")


async def left_of(client: redis.asyncio.Redis, job: Job, queue: str) -> dict[str, int]:
    """Count what arq and we keep of a job."""
    marks = [key async for key in client.scan_iter("*receipt:abort:*")]
    return {
        "queued": int(await client.zscore(queue, job.job_id) is not None),
        "payload": await client.exists(f"arq:job:{job.job_id}"),
        "claim": await client.exists(f"arq:in-progress:{job.job_id}"),
        "arq:abort": await client.zcard("arq:abort"),
        "marks": len(marks),
    }


NOTHING = {"queued": 0, "payload": 0, "claim": 0, "arq:abort": 0, "marks": 0}


async def nothing_is_left(client: redis.asyncio.Redis, job: Job, queue: str) -> None:
    async def gone() -> bool:
        return await left_of(client, job, queue) == NOTHING

    await wait_until(gone, description="nothing is left of the job")


async def counted(tracker: Tracker, name: str) -> None:
    async def is_counted() -> bool:
        return bool(getattr(await tracker.stats(), name) == 1)

    await wait_until(is_counted, description=f"one run is {name}")


async def enqueued(pool: ArqRedis, job_id: str = "j") -> Job:
    job = await pool.enqueue_job("job", _job_id=job_id)
    assert job is not None
    return job


async def is_queued_after_sigterm(worker: RunningWorker, work: Work, pool: ArqRedis, client: redis.asyncio.Redis, queue: str) -> bool:
    """Enqueue the same id again, have the worker run it, and tell the worker to stop: arq runs such a job again."""
    await client.delete("arq:result:j")
    times = sum(entry.startswith("begun") for entry in work.seen)
    again = await enqueued(pool)
    await work.begun(times + 1)
    worker.terminate()
    await worker.stop()
    return (await left_of(client, again, queue))["queued"] == 1


async def test_an_aborted_job_cleans_up_and_is_over(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_client: redis.asyncio.Redis, queue: str
):
    work = Work()
    worker = await run_worker(work.settings(own_tracker))
    job = await enqueued(pool)
    await work.begun()
    found = await observer.abort("j", wait=LONG)
    assert (found.outcome, found.job_id, found.instance_id, found.threads) == (AbortOutcome.ABORTED, "j", own_tracker.instance_id, ())
    assert found.says == "it has ended, and does not run again"
    assert work.seen == ["begun 1", "cancelled", "finally"]
    assert isinstance(await result_of(job), asyncio.CancelledError)
    info = await job.result_info()
    assert info is not None
    assert (info.success, repr(info.result)) == (False, "CancelledError()")
    await nothing_is_left(redis_client, job, queue)
    await wait_until(lambda: worker.worker.aborting_tasks == set(), description="arq aborts nothing any more")
    await counted(observer, "aborted")
    again = await observer.abort("j", wait=SHORT)
    assert (again.outcome, again.says) == (
        AbortOutcome.REFUSED,
        "it does not run, as far as is known: it has ended, or there is no such job",
    )
    assert await is_queued_after_sigterm(worker, work, pool, redis_client, queue)


async def test_a_job_that_swallows_it_goes_on_and_the_same_id_is_safe_afterwards(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_client: redis.asyncio.Redis, queue: str
):
    swallowed = asyncio.Event()
    work = Work(swallowed.wait)
    worker = await run_worker(work.settings(own_tracker))
    job = await enqueued(pool)
    await work.begun()
    found = await abort_soon(observer, "j", wait=SHORT)
    assert (found.outcome, found.says) == (AbortOutcome.GOES_ON, "it was cancelled, and goes on: it has swallowed that, or it cleans up")
    assert found.chain is not None
    assert [frame.rpartition(" ")[2] for frame in found.chain.frames] == ["job", "wait"]
    assert (await left_of(redis_client, job, queue))["marks"] == 1
    swallowed.set()
    assert await result_of(job) == "done"
    await nothing_is_left(redis_client, job, queue)
    await wait_until(lambda: worker.worker.aborting_tasks == set(), description="arq aborts nothing any more")
    work.answer = None
    assert await is_queued_after_sigterm(worker, work, pool, redis_client, queue)


async def test_a_job_that_answers_with_retry_does_not_run_again(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_client: redis.asyncio.Redis, queue: str
):
    async def once_more() -> None:
        raise Retry

    work = Work(once_more)
    worker = await run_worker(work.settings(own_tracker))
    job = await enqueued(pool)
    await work.begun()
    assert (await observer.abort("j", wait=LONG)).outcome is AbortOutcome.ABORTED
    assert isinstance(await result_of(job), asyncio.CancelledError)
    await nothing_is_left(redis_client, job, queue)
    assert work.seen == ["begun 1", "cancelled", "finally"]
    work.answer = None
    assert await is_queued_after_sigterm(worker, work, pool, redis_client, queue)


async def test_a_job_that_fails_in_answer_has_ended_by_itself(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    async def fail() -> None:
        raise ValueError("no")

    work = Work(fail)
    worker = await run_worker(work.settings(own_tracker))
    job = await enqueued(pool)
    await work.begun()
    found = await observer.abort("j", wait=LONG)
    assert (found.outcome, found.says) == (
        AbortOutcome.ENDED_BEFORE,
        "it has swallowed the cancellation, and ended by itself: failed",
    )
    assert isinstance(await result_of(job), ValueError)
    await wait_until(lambda: worker.worker.aborting_tasks == set(), description="arq aborts nothing any more")


async def test_a_job_whose_function_has_not_begun_never_begins(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_client: redis.asyncio.Redis, queue: str
):
    in_hook, may_go_on = asyncio.Event(), asyncio.Event()

    async def hook(ctx: dict[str, Any]) -> None:
        in_hook.set()
        await may_go_on.wait()

    work = Work()
    await run_worker(work.settings(own_tracker, on_job_start=hook))
    job = await enqueued(pool)
    await in_hook.wait()
    found = await abort_soon(observer, "j", wait=SHORT)
    assert (found.outcome, found.says.partition(":")[0]) == (AbortOutcome.GOES_ON, "nothing was done")
    asking = asyncio.create_task(observer.abort("j", wait=LONG))

    async def is_asked() -> bool:
        return bool(await redis_client.hexists(f"{observer.namespace}:instance:{own_tracker.instance_id}", "orders"))

    await wait_until(is_asked, description="the order is given")
    may_go_on.set()
    found = await asking
    assert found.outcome is AbortOutcome.ABORTED
    assert [entry for entry in work.seen if entry.startswith("begun")] in ([], ["begun 1"])
    assert isinstance(await result_of(job), asyncio.CancelledError)
    await nothing_is_left(redis_client, job, queue)
    await counted(observer, "aborted")


async def test_a_job_whose_task_has_not_begun_is_aborted_once_it_has(
    own_tracker: Tracker,
    observer: Tracker,
    pool: ArqRedis,
    run_worker: Any,
    redis_client: redis.asyncio.Redis,
    queue: str,
    wire: Any,
):
    """arq has claimed it and reads its payload: no hook has begun, and only its claim in Redis tells which run it is."""
    work = Work()
    held = wire.hold(lambda command: command[0] == b"GET" and command[1] == b"arq:job:j")
    await run_worker(work.settings(own_tracker), url=wire.url)
    job = await enqueued(pool)
    await wait_until(lambda: held.caught, description="arq has claimed the job")
    asking = asyncio.create_task(observer.abort("j", wait=LONG))

    async def is_given() -> bool:
        key = f"{observer.namespace}:instance:{own_tracker.instance_id}"
        return bool(await redis_client.hexists(key, "orders"))

    await wait_until(is_given, description="the order is given")
    beats: set[float] = set()

    async def is_heard() -> bool:
        beats.add(await redis_client.zscore(f"{observer.namespace}:instances", str(own_tracker.instance_id)))
        return len(beats) == 3  # the reply to the first beat since then had the order in it

    await wait_until(is_heard, timeout=30, description="the order is heard")
    assert not asking.done()
    held.release()
    assert (await asking).outcome is AbortOutcome.ABORTED
    assert isinstance(await result_of(job), asyncio.CancelledError)
    await nothing_is_left(redis_client, job, queue)
    assert work.seen in ([], ["begun 1", "cancelled", "finally"])


async def test_a_job_that_ends_while_the_abort_is_noted_has_ended_before(
    own_tracker: Tracker,
    observer: Tracker,
    pool: ArqRedis,
    run_worker: Any,
    redis_client: redis.asyncio.Redis,
    queue: str,
    wire: Any,
):
    work = Work()
    worker = await run_worker(work.settings(own_tracker), url=wire.url)
    job = await enqueued(pool)
    await work.begun()
    held = wire.hold(lambda command: command[0] == b"SET" and b"receipt:abort:" in command[1])
    asking = asyncio.create_task(abort_soon(observer, "j", wait=LONG))
    await wait_until(lambda: held.caught, description="that it is being aborted is noted")
    work.may_end.set()
    assert await result_of(job) == "done"
    held.release()
    found = await asking
    assert (found.outcome, found.says) == (AbortOutcome.ENDED_BEFORE, "its function had ended")
    await nothing_is_left(redis_client, job, queue)
    assert worker.worker.aborting_tasks == set()


async def test_another_run_of_the_same_id_is_not_hit(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_client: redis.asyncio.Redis
):
    """The claim of the first run is lost, so the same worker runs the job a second time beside it. An order names one run."""
    work = Work()
    worker = await run_worker(work.settings(own_tracker))
    await enqueued(pool)
    await work.begun()
    first = await wait_until(lambda: observer.job("j"), description="the first run is listed")
    assert first is not None
    await redis_client.delete("arq:in-progress:j")
    await work.begun(2)
    for token, outcome in ((first.run, AbortOutcome.GOES_ON), ("a-run-that-has-ended", AbortOutcome.ENDED_BEFORE)):
        found = await abort(observer._control("test"), "j", Meant(first.instance_id, token), wait=SHORT, beyond=LONG)
        assert found.outcome is outcome
        assert "cancelled" not in work.seen
    work.may_end.set()
    await worker.idle()


async def test_a_job_whose_function_has_ended_is_left_alone(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    in_hook, may_go_on = asyncio.Event(), asyncio.Event()

    async def hook(ctx: dict[str, Any]) -> None:
        in_hook.set()
        await may_go_on.wait()

    work = Work()
    work.may_end.set()
    worker = await run_worker(work.settings(own_tracker, on_job_end=hook))
    job = await enqueued(pool)
    await in_hook.wait()
    found = await observer.abort("j", wait=LONG)
    assert (found.outcome, found.says) == (AbortOutcome.ENDED_BEFORE, "its function had ended")
    may_go_on.set()
    assert await result_of(job) == "done"
    await worker.idle()


async def test_a_job_that_waits_in_its_queue_is_refused_and_it_is_said_what_to_do(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, queue: str
):
    work = Work()
    await run_worker(work.settings(own_tracker, max_jobs=1))
    await enqueued(pool, "first")
    await work.begun()
    await enqueued(pool, "second")
    await wait_until(observer.instances, description="the worker is registered")
    found = await observer.abort("second", wait=SHORT)
    assert found.outcome is AbortOutcome.REFUSED
    assert found.says.startswith(f"it does not run: it waits in {queue!r}. Take it out of its queue")
    await pool.set("arq:in-progress:second", b"1")  # as a worker that is not tracked claims it
    found = await observer.abort("second", wait=SHORT)
    assert (found.outcome, found.says) == (AbortOutcome.REFUSED, "a worker that is not tracked has it, and cannot be told anything")
    await pool.delete("arq:in-progress:second")


async def test_threads_go_on_and_the_answer_names_them(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    release, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def compute() -> None:
        loop.call_soon_threadsafe(begun.set)
        release.wait()

    async def job(ctx: dict[str, Any]) -> None:
        await asyncio.to_thread(compute)

    await run_worker(own_tracker.install({"functions": [func(job, name="job")]}))
    try:
        await enqueued(pool)
        await begun.wait()
        found = await observer.abort("j", wait=LONG)
    finally:
        release.set()
    assert found.outcome is AbortOutcome.ABORTED
    (name,) = found.threads
    assert found.says == f"it has ended, and does not run again; thread {name} goes on with what it does for it"


async def test_where_it_cannot_be_noted_nothing_is_done(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, wire: Any
):
    work = Work()
    worker = await run_worker(work.settings(own_tracker), url=wire.url)
    job = await enqueued(pool)
    await work.begun()
    await wait_until(observer.jobs, description="the job is listed")
    wire.reply_with_error("NOPERM no permission", to=lambda command: command[0] == b"SET" and b"receipt:abort:" in command[1])
    with pytest.raises(OrderFailed, match="nothing was done: that it is being aborted cannot be noted in Redis"):
        await observer.abort("j", wait=LONG)
    work.may_end.set()
    assert await result_of(job) == "done"
    await worker.idle()
    assert work.seen == ["begun 1", "finally"]


async def test_a_worker_of_ones_own_says_that_it_cannot(namespace: str, redis_url: str, observer: Tracker):
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker, tracker.register(), tracker.track("42"):
        await wait_until(observer.jobs, description="the job is listed")
        with pytest.raises(UnsupportedControl, match="a run of asyncio cannot be aborted"):
            await observer.abort("42")


async def test_the_command_line_says_what_came_of_it(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, redis_url: str, namespace: str
):
    work = Work()
    await run_worker(work.settings(own_tracker))
    await enqueued(pool)
    await work.begun()
    cli = Cli(url=redis_url, namespace=namespace)
    aborted = await cli.within("abort", "j", "--wait", str(LONG))
    assert aborted.code == 0, aborted.err
    assert aborted.out == f"job j on {own_tracker.instance_id}: aborted: it has ended, and does not run again\n"
    swallowed = asyncio.Event()
    work.answer = swallowed.wait
    await enqueued(pool, "stubborn")
    await work.begun(2)
    goes_on = await cli.within("abort", "stubborn", "--wait", "0.2")
    swallowed.set()
    assert (goes_on.code, "waits for: Future" in goes_on.out) == (1, True)
    refused = await cli.within("abort", "other", "--json")
    assert (refused.code, refused.document["outcome"]) == (4, "refused")


async def test_an_orphan_that_was_being_aborted_is_finished_and_never_run_again(redis_client: redis.asyncio.Redis):
    """Whatever the sweep would have done with it: given back, or put into quarantine."""
    adapter = ArqAdapter(redis_client, receipt_key=str.encode)
    for number, kind in enumerate(("release", "quarantine")):
        run = RunRecord(job_id=f"j{number}", instance_id="dead", token="r", library="arq", queue="q", started_at_ms=1, function="job")
        await redis_client.mset({f"arq:in-progress:{run.job_id}": run.claim, f"arq:job:{run.job_id}": "x", f"arq:retry:{run.job_id}": 1})
        await redis_client.zadd("q", {run.job_id: 1})
        await adapter.note_abort(run.claim)
        if kind == "quarantine":
            assert await adapter.quarantine(run, error="died too often") is None
        for _ in range(2):
            assert await adapter.release(run, delay=0.0) is Released.ABORTED
        assert await redis_client.zscore("q", run.job_id) is None
        left = [key async for key in redis_client.scan_iter(f"*{run.job_id}")]
        assert left == [f"arq:result:{run.job_id}".encode()]
        info = await Job(run.job_id, ArqRedis(redis_client.connection_pool)).result_info()
        assert info is not None
        assert (info.success, repr(info.result), info.function) == (False, "CancelledError()", "job")
        await redis_client.delete(f"arq:result:{run.job_id}", "q", f"receipt:{run.claim}")
