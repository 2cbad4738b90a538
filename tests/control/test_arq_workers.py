"""Real arq workers that are told to be quiet, to resume and to stop, and what may come in between."""

import asyncio
import os
import signal
import sys
import time
from typing import Any, ClassVar

import pytest
from arq import cron, func
from arq.connections import ArqRedis

from async_tracker import InstanceState, OrderOutcome, Tracker, UnsupportedControl
from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until

LONG = 30.0
"""Seconds that an answer may take on a busy machine."""


class Work:
    """Functions of a worker that wait until they may end."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()
        self.begun: list[str] = []
        self.ended: list[tuple[str, int]] = []

    async def hold(self, ctx: dict[str, Any]) -> None:
        self.begun.append(ctx["job_id"])
        await self.may_end.wait()
        self.ended.append((ctx["job_id"], ctx["job_try"]))

    async def tick(self, ctx: dict[str, Any]) -> None:
        self.ended.append((ctx["job_id"], ctx["job_try"]))

    def settings(self, tracker: Tracker, **more: Any) -> Any:
        return tracker.install({"functions": [func(self.hold, name="hold")], "max_jobs": 20, **more})


async def the_instance(tracker: Tracker, state: str = "alive") -> str:
    async def found() -> str | None:
        return next((item.instance_id for item in await tracker.instances() if item.state == state), None)

    return str(await wait_until(found, description=f"an instance is {state}"))


async def test_a_quiet_worker_claims_nothing_and_runs_what_it_has_until_it_is_resumed(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any
):
    work = Work()
    running = await run_worker(work.settings(own_tracker))
    for number in range(3):
        await pool.enqueue_job("hold", _job_id=f"before-{number}")
    await wait_until(lambda: len(work.begun) == 3, description="three run")
    instance_id = await the_instance(observer)
    answer = await observer.quiet(instance_id, wait=LONG)
    assert (answer.outcome, answer.says) == (OrderOutcome.DONE, "it takes no more jobs, and runs the 3 that it has")
    (instance,) = await observer.instances()
    assert (instance.state, instance.busy, instance.concurrency) == (InstanceState.QUIET, 3, 20)
    assert own_tracker.is_quiet
    await pool.enqueue_job("hold", _job_id="after")
    checked = running.worker._last_health_check
    running.worker.health_check_interval = 0.0
    await wait_until(lambda: running.worker._last_health_check > checked + 0.3, description="it has polled a few times since")
    assert len(work.begun) == 3
    work.may_end.set()
    await wait_until(lambda: len(work.ended) == 3, description="what it had has ended")
    await wait_until(lambda: not running.worker.job_counter, description="arq has written so")
    again = await observer.quiet(instance_id, wait=LONG)
    assert again.says == "it was quiet before; it takes no more jobs, and runs the 0 that it has"
    resumed = await observer.resume(instance_id, wait=LONG)
    assert (resumed.outcome, running.worker.max_jobs) == (OrderOutcome.DONE, 20)
    await wait_until(lambda: ("after", 1) in work.ended, description="it takes jobs again")
    assert await the_instance(observer) == instance_id
    assert not own_tracker.is_quiet
    assert (await observer.resume(instance_id, wait=LONG)).says == "it was not quiet; it takes jobs again"
    await running.idle()


async def test_it_is_answered_once_no_claim_is_under_way(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    """arq goes on claiming what it has read of its queue; with max_jobs at 0 it ends at the job that is under way."""
    work = Work()
    running = await run_worker(work.settings(own_tracker, max_jobs=500))
    instance_id = await the_instance(observer)
    asked = asyncio.create_task(observer.quiet(instance_id, wait=LONG))
    number = 0
    while not asked.done():
        for _ in range(20):
            await pool.enqueue_job("hold", _job_id=f"{number}")
            number += 1
    answer = await asked
    claimed = running.worker.job_counter
    assert answer.says == f"it takes no more jobs, and runs the {claimed} that it has"
    assert claimed == len([task for task in running.worker.tasks.values() if not task.done()])
    assert await pool.zcard(running.worker.queue_name) == number > claimed
    assert sum([await pool.exists(f"arq:in-progress:{job}") for job in range(number)]) == claimed
    work.may_end.set()
    await running.idle()


async def test_two_runs_of_one_job_in_one_worker_are_no_claim_under_way(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any
):
    """A job that outlives its claim is run once more beside itself, and arq forgets its first task."""
    work = Work()
    running = await run_worker(work.settings(own_tracker))
    await pool.enqueue_job("hold", _job_id="twice")
    await wait_until(lambda: len(work.begun) == 1, description="it runs")
    await pool.delete("arq:in-progress:twice")
    await wait_until(lambda: len(work.begun) == 2, description="it runs once more beside itself")
    answer = await observer.quiet(await the_instance(observer), wait=LONG)
    assert (answer.outcome, answer.says) == (OrderOutcome.DONE, "it takes no more jobs, and runs the 2 that it has")
    work.may_end.set()
    await running.idle()


async def test_a_worker_that_cannot_be_quiet_in_time_says_so_and_takes_jobs_as_before(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any
):
    work = Work()
    running = await run_worker(work.settings(own_tracker))
    instance_id = await the_instance(observer)
    running.worker.job_counter += 1  # as while a claim is under way, which Redis does not answer
    answer = await observer.quiet(instance_id, wait=1.0)
    assert answer.outcome in (OrderOutcome.FAILED, OrderOutcome.UNANSWERED)
    await wait_until(lambda: running.worker.max_jobs == 20, description="it may claim again")
    assert not own_tracker.is_quiet
    await pool.enqueue_job("hold", _job_id="after")
    await wait_until(lambda: work.begun == ["after"], description="it takes jobs")
    running.worker.job_counter -= 1
    assert (await observer.quiet(instance_id, wait=LONG)).says == "it takes no more jobs, and runs the 1 that it has"
    running.worker.job_counter += 1
    again = await observer.quiet(instance_id, wait=1.0)
    assert again.outcome in (OrderOutcome.FAILED, OrderOutcome.UNANSWERED)
    running.worker.job_counter -= 1
    assert (await observer.quiet(instance_id, wait=LONG)).says.startswith("it was quiet before")
    assert running.worker.max_jobs == 0
    work.may_end.set()
    await running.idle()


async def test_all_workers_are_quiet_and_one_dies_what_it_ran_is_recovered(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, namespace: str, redis_url: str, workers: Any, ledger: Any
):
    env = {"TEST_REDIS_URL": redis_url, "TEST_LEDGER": str(ledger.path), "TEST_NAMESPACE": namespace}
    env["TEST_SETTINGS"] = '{"heartbeat_interval": 0.5, "heartbeat_ttl": 15.0, "sweep_interval": 0.1}'
    process = workers.start("tests.integrations.conformance.arq_app.WorkerSettings", env=env)
    first = await the_instance(observer)
    other_queue = ArqRedis(connection_pool=pool.connection_pool)
    await other_queue.enqueue_job("hold", 60.0, _job_id="lost")

    async def is_in_flight() -> bool:
        return await observer.job("lost") is not None

    await wait_until(is_in_flight, timeout=30.0, description="it runs")
    running = await run_worker(Work().settings(own_tracker), queue_name="arq:queue")
    await wait_until(lambda: own_tracker.instance_id is not None, description="the second is registered")

    async def two() -> bool:
        return len(await observer.instances()) == 2

    await wait_until(two, description="both are there")
    answers = await observer.quiet(queue="arq:queue", wait=LONG)
    assert {answer.outcome for answer in answers} == {OrderOutcome.DONE}
    assert {item.state for item in await observer.instances()} == {InstanceState.QUIET}
    process.kill()

    async def is_recovered() -> bool:
        told = [event for event in await observer.recent_events() if event.type == "recovered"]
        return [event.job_id for event in told] == ["lost"] and told[0].instance_id == first and told[0].details["deaths"] == 1

    await wait_until(is_recovered, timeout=30.0, description="a quiet instance recovers, and the death of a quiet one counts")
    assert running.worker.max_jobs == 0
    await other_queue.zrem("arq:queue", "lost")
    await other_queue.delete("arq:job:lost")


async def test_a_stopped_worker_does_not_answer_and_is_not_quiet_when_it_goes_on_and_a_killed_one_is_gone(
    observer: Tracker, namespace: str, redis_url: str, workers: Any, ledger: Any
):
    env = {"TEST_REDIS_URL": redis_url, "TEST_LEDGER": str(ledger.path), "TEST_NAMESPACE": namespace}
    env["TEST_SETTINGS"] = '{"heartbeat_interval": 0.5, "heartbeat_ttl": 120.0, "silence_limit": 120.0}'
    process = workers.start("tests.integrations.conformance.arq_app.WorkerSettings", env=env)
    instance_id = await the_instance(observer)
    process.suspend()
    answer = await observer.quiet(instance_id, wait=0.2)
    assert (answer.outcome, answer.says) == (OrderOutcome.UNANSWERED, "no answer in time, so it was taken back")
    process.resume()
    assert (await observer.resume(instance_id, wait=LONG)).says == "it was not quiet; it takes jobs again"
    process.suspend()
    asked = asyncio.create_task(observer.quiet(instance_id, wait=LONG))

    async def is_placed() -> bool:
        async with observer.redis() as redis:
            return bool(await redis.hexists(f"instance:{instance_id}", "orders"))

    await wait_until(is_placed, description="the order stands in its hash")
    process.kill()
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as sweeping:
        while not asked.done():
            await sweeping.recover()
            await asyncio.sleep(0.1)
    assert (await asked).outcome is OrderOutcome.GONE


async def test_cron_jobs_are_still_queued_and_said_so_or_skipped(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    work = Work()
    ticking = cron(work.tick, name="tick", second=set(range(60)))
    running = await run_worker(work.settings(own_tracker, cron_jobs=[ticking]))
    instance_id = await the_instance(observer)
    answer = await observer.quiet(instance_id, wait=LONG)
    assert answer.says.endswith("; its cron jobs are still queued")

    async def queued() -> int:
        return int(await pool.zcard(running.worker.queue_name))

    async def two_are_queued() -> bool:
        return await queued() >= 2

    await wait_until(two_are_queued, description="two cron jobs wait")
    answer = await observer.quiet(instance_id, cron=False, wait=LONG)
    assert answer.says.endswith("; its cron jobs are skipped")
    checked = running.worker._last_health_check
    running.worker.health_check_interval = 0.0
    await wait_until(lambda: running.worker._last_health_check > checked + 0.1, description="what it was queueing meanwhile is queued")
    waiting = await queued()
    began = time.time()
    skipped = int(began) + 2  # arq queues what is due within a second: that one would have come
    await wait_until(lambda: time.time() > skipped + 1, description="one would have come")
    assert await queued() == waiting
    await observer.resume(instance_id, wait=LONG)
    await wait_until(lambda: len(work.ended) > waiting, description="cron jobs run again")
    assert skipped not in {int(job_id.partition(":")[2]) // 1000 for job_id, _ in work.ended}, "what was skipped stays skipped"
    assert running.worker.cron_jobs == [ticking]
    running.worker.cron_jobs = []
    await running.idle()


async def test_a_burst_worker_waits_while_it_is_quiet(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    work = Work()
    await pool.enqueue_job("hold", _job_id="first")
    running = await run_worker(work.settings(own_tracker), burst=True)
    instance_id = await the_instance(observer)
    await observer.quiet(instance_id, wait=LONG)
    await pool.enqueue_job("hold", _job_id="second")
    work.may_end.set()
    await wait_until(lambda: ("first", 1) in work.ended, description="the first has ended")
    assert not running.task.done()
    await observer.resume(instance_id, wait=LONG)
    await wait_until(running.task.done, description="it ends once the queue is empty")
    assert ("second", 1) in work.ended


async def test_a_worker_that_shuts_down_refuses_to_resume(own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any):
    work = Work()
    running = await run_worker(work.settings(own_tracker), job_completion_wait=60)
    await pool.enqueue_job("hold", _job_id="in hand")
    await wait_until(lambda: work.begun, description="it runs")
    instance_id = await the_instance(observer)
    await observer.quiet(instance_id, wait=LONG)
    running.terminate()
    await the_instance(observer, "draining")
    answer = await observer.resume(instance_id, wait=LONG)
    assert (answer.outcome, answer.says) == (OrderOutcome.REFUSED, "it is shutting down, and takes no more jobs")
    assert (await observer.quiet(instance_id, wait=LONG)).says == "it is shutting down, and takes no more jobs anyway"
    assert (await observer.stop(instance_id, wait=LONG)).says == "it is shutting down already"
    assert running.worker.max_jobs == 0
    work.may_end.set()
    await running.stop()
    assert work.ended == [("in hand", 1)]
    assert running.worker.max_jobs == 20


async def test_stop_ends_the_worker_as_its_own_handler_does_and_says_what_ends(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any
):
    work = Work()
    got_signals: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got_signals.append(number))
    try:
        running = await run_worker(work.settings(own_tracker), job_completion_wait=60)
        await pool.enqueue_job("hold", _job_id="in hand")
        await wait_until(lambda: work.begun, description="it runs")
        instance_id = await the_instance(observer)
        answer = await observer.stop(instance_id, wait=LONG)
        assert answer.says == "arq's worker ends; the 1 in hand has 60 s to end (job_completion_wait)"
        assert own_tracker.is_stopping
        assert (await observer.resume(instance_id, wait=LONG)).outcome is OrderOutcome.REFUSED
        work.may_end.set()
        await wait_until(running.task.done, description="its main task has ended")
        await running._close()
        assert await observer.instances() == []
        assert (work.ended, got_signals) == ([("in hand", 1)], [])
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_a_program_of_its_own_goes_on_when_its_worker_is_stopped(
    redis_url: str, namespace: str, observer: Tracker, workers: Any, tmp_path: Any
):
    program = tmp_path / "host.py"
    program.write_text(
        "import asyncio, os\n"
        "from arq.connections import RedisSettings\n"
        "from arq.worker import Worker\n"
        "from async_tracker import Tracker\n"
        "async def nothing(ctx): pass\n"
        f"tracker = Tracker(namespace={namespace!r}, heartbeat_interval=0.5)\n"
        "async def main():\n"
        f"    settings = tracker.install({{'functions': [nothing], 'redis_settings': RedisSettings.from_dsn({redis_url!r})}})\n"
        "    worker = Worker(**settings, handle_signals=False)\n"
        "    try:\n"
        "        await worker.async_run()\n"
        "    except asyncio.CancelledError:\n"
        "        print('worker over, host goes on', flush=True)\n"
        "    await worker.close()\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    host = workers.start_program([sys.executable, "-W", "ignore", str(program)], env={"PYTHONPATH": os.getcwd()})
    instance_id = await the_instance(observer)
    answer = await observer.stop(instance_id, wait=LONG)
    assert answer.says == "arq's worker ends; it has no job in hand"
    await asyncio.to_thread(host.wait_for_output, "host goes on")

    async def has_left() -> bool:
        return await observer.instances() == []

    await wait_until(has_left, description="its instance has left")
    assert host.exit_code is None


async def test_who_registers_while_the_order_stands_begins_quiet(
    own_tracker: Tracker, observer: Tracker, pool: ArqRedis, run_worker: Any, queue: str
):
    work = Work()
    assert await observer.quiet(queue=queue, by="ann") == []
    (standing,) = await observer.standing_orders()
    assert (standing.order, standing.queue, standing.by, 3500 < standing.left <= 3600) == ("quiet", queue, "ann", True)
    await pool.enqueue_job("hold", _job_id="waits")
    running = await run_worker(work.settings(own_tracker))
    await the_instance(observer, "quiet")
    assert (work.begun, running.worker.max_jobs) == ([], 0)
    runtime = runtime_of(own_tracker)
    (answer,) = await observer.resume(queue=queue, wait=LONG)
    assert answer.outcome is OrderOutcome.DONE
    assert await observer.standing_orders() == []
    await wait_until(lambda: work.begun == ["waits"], description="it works")
    work.may_end.set()
    assert runtime.instance_id == answer.instance_id
    await running.idle()


async def test_an_instance_that_was_resumed_stays_so_when_it_registers_anew_under_a_standing_order(
    own_tracker: Tracker, observer: Tracker, run_worker: Any, queue: str
):
    await observer.quiet(queue=queue)
    await run_worker(Work().settings(own_tracker))
    instance_id = await the_instance(observer, "quiet")
    await observer.resume(instance_id, wait=LONG)  # this one alone: the order stands for others
    runtime = runtime_of(own_tracker)
    runtime.registration.lost()
    await wait_until(lambda: runtime.registration.is_registered, description="it has registered anew")
    await runtime.registration.beat()
    assert await the_instance(observer) == instance_id
    assert not own_tracker.is_quiet


async def test_a_quiet_worker_that_was_declared_dead_stays_quiet_under_its_new_id(
    own_tracker: Tracker, observer: Tracker, run_worker: Any, redis_client: Any, namespace: str
):
    running = await run_worker(Work().settings(own_tracker))
    instance_id = await the_instance(observer)
    await observer.quiet(instance_id, wait=LONG)
    pipe = redis_client.pipeline()
    pipe.set(f"{namespace}:tombstone:{instance_id}", 1, ex=60)
    pipe.zrem(f"{namespace}:instances", instance_id)
    pipe.hdel(f"{namespace}:connections", instance_id)
    pipe.delete(f"{namespace}:instance:{instance_id}", f"{namespace}:counters:{instance_id}")
    await pipe.execute()
    await wait_until(lambda: own_tracker.instance_id != instance_id, description="it goes by another id")
    assert await the_instance(observer, "quiet") == own_tracker.instance_id
    assert (await observer.quiet(instance_id)).outcome is OrderOutcome.NOT_FOUND
    new_id = own_tracker.instance_id
    assert new_id is not None
    await observer.resume(new_id, wait=LONG)
    assert running.worker.max_jobs == 20


async def test_a_worker_that_does_not_take_orders_refuses_them_and_one_that_takes_some_the_others(
    namespace: str, observer: Tracker, run_worker: Any
):
    tracker = Tracker(namespace=namespace, heartbeat_interval=0.5, control={"quiet", "resume"})
    running = await run_worker(Work().settings(tracker))
    instance_id = await the_instance(observer)
    refused = await observer.stop(instance_id)
    assert (refused.outcome, "control" in refused.says) == (OrderOutcome.REFUSED, True)
    assert (await observer.quiet(instance_id, wait=LONG)).outcome is OrderOutcome.DONE
    assert not running.task.done()


async def test_a_worker_that_was_not_found_cannot_be_told_anything(namespace: str, observer: Tracker, pool: ArqRedis):
    class Hooks:
        ctx: ClassVar[dict[str, Any]] = {}

    tracker = Tracker(namespace=namespace, heartbeat_interval=0.5)
    Hooks.ctx = {"redis": pool}
    await tracker.on_startup(Hooks.ctx)
    try:
        instance_id = await the_instance(observer)
        with pytest.raises(UnsupportedControl, match="was not found"):
            await observer.quiet(instance_id, wait=LONG)
        answers = await observer.stop([instance_id], wait=LONG)
        assert [answer.outcome for answer in answers] == [OrderOutcome.UNSUPPORTED]
    finally:
        await tracker.on_shutdown(Hooks.ctx)
        await tracker.aclose()
