"""What is known of dramatiq's processes and messages while all goes well."""

import asyncio
import os
import time
from datetime import datetime
from pathlib import Path

from async_tracker import FunctionStats, Job, Tracker
from tests.harness.wait import wait_until
from tests.integrations.dramatiq.masters import DONE_SECONDS, QUICK, Masters


async def test_every_process_of_a_master_is_an_instance_that_says_what_it_works_on(masters: Masters):
    master = masters.start(processes=2, threads=3)
    for instance in await masters.registered(2):
        assert instance.library == "dramatiq"
        assert instance.pid != master.pid
        assert instance.concurrency == 3
        assert instance.queues == ("default", "slow")
        assert instance.queue == "default, slow"
        assert {"hold", "hold_async"} <= set(instance.functions)
        assert "dramatiq" in instance.versions
    await masters.close()


async def test_a_worker_that_consumes_some_queues_names_only_those(masters: Masters):
    masters.start(processes=1, arguments="-Q slow")
    [instance] = await masters.registered(1)
    assert instance.queues == ("slow",)
    assert instance.functions == ("hold_async",)
    await masters.close()


async def test_plain_and_async_actors_find_their_job_and_say_how_far_they_are(masters: Masters, tmp_path: Path):
    masters.start(processes=1)
    await masters.registered(1)
    plain = masters.send("report", 0.25, str(tmp_path / "end"))
    in_coroutine = masters.send("report_async", 0.75, str(tmp_path / "end"))

    async def with_progress(message_id: str) -> Job | None:
        job = await masters.tracker.job(message_id)
        return job if job is not None and job.progress is not None else None

    found = await wait_until(lambda: with_progress(plain), timeout=DONE_SECONDS, description="the plain actor's progress is seen")
    assert found is not None
    assert (found.progress, found.progress_message) == (0.25, "report 1 default")
    assert (found.job_id, found.function, found.queue, found.library) == (plain, "report", "default", "dramatiq")
    assert found.timeout == 600.0
    assert found.enqueued_at is not None
    found = await wait_until(lambda: with_progress(in_coroutine), timeout=DONE_SECONDS, description="the coroutine's progress is seen")
    assert found is not None
    assert (found.progress, found.progress_message) == (0.75, "from a coroutine")
    (tmp_path / "end").touch()
    await masters.succeeded()
    await masters.close()


async def test_outcomes_are_those_that_the_middlewares_decide(masters: Masters):
    master = masters.start(processes=1)
    await masters.registered(1)
    masters.send("hold", 0.0)
    masters.send("fail_once")
    for actor in ("fail", "exceed", "too_old"):
        masters.send(actor, must=False)
    await masters.succeeded()
    await wait_until(
        lambda: {run.outcome for run in masters.ledger.read().runs} >= {"ValueError", "TimeLimitExceeded"},
        timeout=DONE_SECONDS,
        description="the failing messages have run",
    )
    told_to_stop = masters.send("until_shutdown", must=False)
    await masters.in_flight(told_to_stop)
    master.ask_to_leave()
    master.wait()
    stats = {row.function: row for row in (await masters.tracker.stats()).functions}
    assert (stats["hold"].started, stats["hold"].succeeded) == (1, 1)
    assert (stats["fail"].started, stats["fail"].failed) == (1, 1)
    assert (stats["fail_once"].started, stats["fail_once"].retried, stats["fail_once"].succeeded) == (2, 1, 1)
    assert stats["exceed"].timed_out == 1
    assert stats["too_old"].aborted == 1
    assert stats["until_shutdown"].cancelled == 1
    assert stats["until_shutdown"].run_time > 0
    await masters.close()


async def test_a_message_that_is_retried_is_one_job_with_another_try(masters: Masters):
    masters.start(processes=1)
    await masters.registered(1)
    message_id = masters.send("fail_once")
    account = await masters.succeeded()
    assert [run.attempt for run in account.runs_of(message_id)] == [1, 2]
    await masters.close()


async def test_an_id_that_two_libraries_share_is_two_jobs(masters: Masters, redis_url: str, namespace: str, tmp_path: Path):
    masters.start(processes=1)
    await masters.registered(1)
    masters.send("until_told", str(tmp_path / "end"), message_id="the-same")
    await masters.in_flight("the-same")
    async with (
        Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker,
        tracker.register(queue="other"),
        tracker.track("the-same", function="another"),
    ):
        await wait_until(lambda: _two_jobs(tracker), timeout=DONE_SECONDS, description="both jobs are listed")
        (tmp_path / "end").touch()
        await masters.succeeded()
        left = await wait_until(lambda: _one_job(tracker), timeout=DONE_SECONDS, description="dramatiq's job has ended")
        assert left is not None
        assert (left.function, left.library, left.superseded) == ("another", "asyncio", 0)
    await masters.close()


async def _two_jobs(tracker: Tracker) -> bool:
    found = {(job.job_id, job.library, job.function) for job in await tracker.jobs()}
    return found == {("the-same", "dramatiq", "until_told"), ("the-same", "asyncio", "another")}


async def _one_job(tracker: Tracker) -> Job | None:
    found = await tracker.jobs()
    return found[0] if len(found) == 1 else None


async def test_a_process_whose_threads_all_block_is_alive_and_keeps_its_messages(masters: Masters, tmp_path: Path):
    """It beats on: counted in heartbeats, and not in the seconds that a busy machine takes for them."""
    patient = {**QUICK, "heartbeat_ttl": 15.0}
    for _ in range(2):
        masters.start(processes=1, threads=2, settings=patient, dramatiq_queue_prefetch="2")  # neither has more than it has threads
    await masters.registered(2)
    blocked = [masters.send("until_told", str(tmp_path / "end")) for _ in range(4)]
    for message_id in blocked:
        await masters.in_flight(message_id)
    beats: dict[str, set[datetime]] = {}

    async def each_has_beaten_six_times() -> bool:
        instances = await masters.tracker.instances()
        assert [str(instance.state) for instance in instances] == ["alive", "alive"]
        for instance in instances:
            beats.setdefault(instance.instance_id, set()).add(instance.heartbeat_at)
        return len(beats) == 2 and min(map(len, beats.values())) > 6

    await wait_until(each_has_beaten_six_times, timeout=DONE_SECONDS, description="each process has beaten six times", poll_interval=0.05)
    (tmp_path / "end").touch()
    account = await masters.succeeded()
    assert all(len(account.runs_of(message_id)) == 1 for message_id in blocked)
    await masters.close()


async def test_a_master_that_is_asked_to_leave_drains_and_leaves_nothing(masters: Masters, tmp_path: Path):
    master = masters.start(processes=2)
    await masters.registered(2)
    message_id = masters.send("until_told", str(tmp_path / "end"))
    job = await masters.in_flight(message_id)
    master.ask_to_leave()

    async def drains() -> bool:
        instance = await masters.tracker.instance(job.instance_id)
        return instance is not None and instance.state == "draining"

    await wait_until(drains, timeout=DONE_SECONDS, description="the instance says that it drains")
    assert (await masters.tracker.job(message_id)) is not None
    (tmp_path / "end").touch()
    master.wait()
    assert await masters.tracker.instances() == []
    account = await masters.close()
    assert len(account.runs_of(message_id)) == 1


async def test_the_wait_of_a_message_is_counted_from_when_it_was_due(masters: Masters):
    for _ in range(3):
        masters.send("hold", 0.0)
    await asyncio.sleep(1.0)
    masters.start(processes=1)
    await masters.registered(1)
    sent_at = time.monotonic()
    delayed = masters.send("report", 0.5, os.devnull, delay_ms=5_000)
    account = await masters.succeeded()
    (run,) = account.runs_of(delayed)

    async def waits() -> dict[str | None, FunctionStats]:
        rows = {row.function: row for row in (await masters.tracker.stats(window=600)).functions}
        return rows if set(rows) >= {"hold", "report"} and rows["hold"].started == 3 else {}

    rows: dict[str | None, FunctionStats] = await wait_until(waits, timeout=DONE_SECONDS, description="the history has them")
    assert (rows["hold"].queue_wait_p50 or 0.0) >= 0.9
    late = run.started_at_ns / 1e9 - sent_at - 5.0
    assert (rows["report"].queue_wait_max or 0.0) <= max(late, 0.0) * 1.1 + 2.0, "the five seconds of its delay are no wait"
    await masters.close()


async def test_queues_tell_what_waits_and_for_how_long(masters: Masters, tmp_path: Path):
    masters.start(processes=1, threads=1, dramatiq_queue_prefetch="1")
    await masters.registered(1)
    running = masters.send("until_told", str(tmp_path / "end"))
    await masters.in_flight(running)
    for _ in range(3):
        masters.send("hold", 0.0)
    depths = {depth.queue: depth for depth in await masters.tracker.queues()}
    assert (depths["default"].depth, depths["default"].due, depths["default"].library) == (4, 3, "dramatiq")
    assert depths["default"].oldest_wait is not None
    assert (depths["slow"].depth, depths["slow"].oldest_wait) == (0, None)
    (tmp_path / "end").touch()
    await masters.succeeded()
    await masters.close()
