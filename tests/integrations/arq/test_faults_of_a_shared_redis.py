"""The tracker shares arq's Redis: what hurts only the tracker hurts no job, and what hurts arq hurts it as it would without us."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
from arq.worker import func
from redis.asyncio import Redis

from tests.harness.inside import runtime_of
from tests.harness.wait import wait_until
from tests.integrations.arq.running import FOR_A_COMMAND, open_pool, result_of, wait_for_end
from tests.integrations.arq.with_and_without_tracker import HOOK_TIMEOUT, Company, has_met_the_fault, sees, story_of

IN_PROGRESS = b"arq:in-progress:"
BEAT = 1.0
RIGHT_AGAIN = 2 * BEAT + 1.0
"""Two beats, and a second for a machine that is busy with other tests."""


async def job(ctx):
    return "done"


@pytest.fixture
def tracker(make_tracker):
    return make_tracker(heartbeat_interval=BEAT, hook_timeout=HOOK_TIMEOUT)


NONSENSE, RESET = "(nonsense)", "(reset)"
"""Faults that are no error reply: one that nobody expects, and none, for the connection is reset before the server has seen the command."""

REFUSALS = {
    "no memory": "OOM command not allowed when used memory > 'maxmemory'.",
    "no permission": "NOPERM this user has no permissions",
    "a replica": "READONLY a replica",
    "loading": "LOADING Redis is loading the dataset in memory",
    "busy": "BUSY Redis is busy running a script.",
    "no password": "NOAUTH Authentication required.",
    "master down": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
}


def is_of_the_tracker(command):
    """Tell whether nobody but the tracker sends this; CLIENT SETINFO is sent by every connection of the driver's, arq's too."""
    return command[0] in (b"EVALSHA", b"EVAL") or (command[0] == b"CLIENT" and command[1].upper() != b"SETINFO")


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_scripts_refused_on_the_shared_redis_are_no_fault_of_a_job(tracker, observer, run_worker, pool, wire, refusal):
    @asynccontextmanager
    async def refuses() -> AsyncIterator[None]:
        rule = wire.reply_with_error(REFUSALS[refusal], to=is_of_the_tracker)
        yield
        rule.remove()

    untouched, company = Company(), Company()
    expected = await story_of(untouched, await run_worker(untouched.settings(dict), url=wire.url), pool, prefix="a-", weather=refuses)
    worker = await run_worker(company.settings(tracker.install), url=wire.url)

    async def right_again() -> None:
        await wait_until(lambda: sees(observer, tracker, "b-hold"), timeout=RIGHT_AGAIN, description="the tracker is right again")

    met = partial(has_met_the_fault, tracker)
    assert await story_of(company, worker, pool, prefix="b-", weather=refuses, has_met_it=met, on_change=right_again) == expected
    company.assert_hooks_kept_their_time()


@pytest.mark.parametrize(
    "error",
    [
        "LOADING in progress",
        "OOM no memory",
        "READONLY a replica",
        "ERR no such thing",
        "NOAUTH Authentication required.",
        "BUSY Redis is busy running a script.",
        "NOPERM this user has no permissions",
        "MASTERDOWN Link with MASTER is down.",
        NONSENSE,
        RESET,
    ],
)
@pytest.mark.parametrize("command", [b"WATCH", b"EXISTS", b"ZSCORE", b"MULTI", b"PSETEX", b"EXEC"])
async def test_a_fault_in_the_claim_does_to_a_worker_what_it_does_without_us(
    tracker, observer, run_worker, pool, wire, redis_client, command, error
):
    """The wrapped claim is arq's own: refused once in the middle of it, the worker goes on, or ends, as it would have."""

    async def story(install):
        rule = fault_in_the_claim(wire, command, error)
        worker = await run_worker(install({"functions": [job]}), url=wire.url)
        queued = await pool.enqueue_job("job", _job_id="the job")
        inner = worker.worker
        await wait_until(lambda: rule.caught, description="the claim met the fault")
        if error == RESET:
            wire.cut()
            rule.release()
        if command == b"MULTI" and error != RESET:  # the claim was written all the same, and arq waits for itself
            await wait_until(lambda: redis_client.exists("arq:in-progress:the job"), description="the job is claimed by nobody")
        else:
            await wait_until(lambda: ended_or_complete(worker), timeout=20, description="the worker has ended, or the job")
        ended = worker.error
        await worker.end()
        rule.remove()
        result = repr(await result_of(queued)) if inner.jobs_complete else "none"
        return type(ended), inner.jobs_complete, result, await cleared_away(redis_client, pool)

    assert await story(dict) == await story(tracker.install)
    assert await observer.jobs() == []


def fault_in_the_claim(wire, command, error):
    def is_meant(sent):
        return sent[0] == command and (command != b"PSETEX" or IN_PROGRESS in sent[1])  # PSETEX also writes arq's own health check

    if error == RESET:
        return wire.hold(is_meant, times=1)
    rule = wire.reply_with_error(error, to=is_meant, times=1)
    if error == NONSENSE:
        rule.reply = b"+what\r\n"
    return rule


def ended_or_complete(worker):
    return worker.task.done() or (worker.worker.jobs_complete and not worker.worker.tasks)


async def cleared_away(redis_client, pool):
    """Give the keys and the queue that arq has left behind, and delete them."""
    # what the tracker gives back at its orderly end is the one thing that may differ, and only for the better
    keys = sorted([key async for key in redis_client.scan_iter("arq:*") if not key.startswith(IN_PROGRESS)])
    queued = await redis_client.zrange(pool.default_queue_name, 0, -1)
    await redis_client.delete(pool.default_queue_name, *keys, "arq:in-progress:the job")
    return keys, queued


LATE, AFTER_A_BEAT, CUT, LOST, NEVER = "late", "after a beat", "cut off", "done and its answer lost", "never"
"""How a wait for an answer ends; one that never ends is ended by who tells the worker to stop."""


@pytest.mark.parametrize(
    ("command", "ends"),
    [(command, ends) for command in (b"WATCH", b"EXEC") for ends in (LATE, AFTER_A_BEAT, CUT, NEVER)] + [(b"EXEC", LOST)],
)
async def test_a_claim_that_waits_for_its_answer_comes_to_the_end_that_it_has_without_us(
    tracker, observer, run_worker, pool, wire, redis_client, command, ends
):
    """All else is answered meanwhile: the instance beats on, and is alive. What lies between WATCH and EXEC is sent together with EXEC."""

    async def story(install, *, beats):
        rule = wire.hold(lambda sent: sent[0] == command)
        worker = await run_worker(install({"functions": [job]}), url=wire.url)
        queued = await pool.enqueue_job("job", _job_id="the job")
        inner = worker.worker
        await wait_until(lambda: rule.caught, description="the claim waits for its answer")
        await (short_wait() if ends == LATE else beats())
        assert not inner.tasks, "nothing runs that was not claimed"
        await end_of_the_wait(wire, rule, ends, redis_client)
        if ends in (LATE, AFTER_A_BEAT, CUT):
            await wait_until(lambda: ended_or_complete(worker), timeout=20, description="the worker has ended, or the job")
        ended = worker.error
        await worker.end()
        wire.cut()  # what was never answered must not be done now
        rule.release()
        assert ends != LOST or install is dict or not await redis_client.exists("arq:in-progress:the job"), "the claim was not given back"
        result = repr(await result_of(queued)) if inner.jobs_complete else "none"
        return type(ended), inner.jobs_complete, result, await cleared_away(redis_client, pool)

    async def beats():
        (before,) = await wait_until(observer.instances, description="the instance is there")
        await wait_until(lambda: has_beaten_since(observer, before), description="the instance beats")

    assert await story(dict, beats=short_wait) == await story(tracker.install, beats=beats)
    assert (await observer.jobs(), await observer.instances()) == ([], [])


async def short_wait():
    await asyncio.sleep(0.3)


async def has_beaten_since(observer, before):
    (instance,) = await observer.instances()
    assert instance.state == "alive"
    return instance.heartbeat_at > before.heartbeat_at


async def end_of_the_wait(wire, rule, ends, redis_client):
    """End the wait as ``ends`` says; where it never ends, do nothing."""
    if ends == CUT:
        wire.cut()
    elif ends == LOST:
        look = wire.hold({"ZRANGEBYSCORE"})  # else the worker claims it anew before the old claim has arrived
        wire.cut_clients()
    if ends != NEVER:
        rule.release()
    if ends == LOST:
        await wait_until(lambda: redis_client.exists("arq:in-progress:the job"), description="the job is claimed by nobody")
        await wait_until(lambda: look.caught, description="the worker goes on")
        look.release()


async def test_the_trackers_connection_may_be_killed_and_is_back_at_once(tracker, observer, run_worker, pool, redis_client):
    company = Company()
    worker = await run_worker(company.settings(tracker.install))
    held = await pool.enqueue_job("hold")
    await wait_until(observer.jobs, description="the job is in flight")
    (before,) = await observer.instances()
    for connection_id in before.connection_ids:
        await redis_client.client_kill_filter(_id=str(connection_id))

    async def is_back() -> bool:
        (instance,) = await observer.instances()
        return instance.connection_ids != before.connection_ids and await sees(observer, tracker, held.job_id)

    await wait_until(is_back, timeout=RIGHT_AGAIN, description="the tracker has another connection and is right")
    company.may_end.set()
    assert await result_of(held) == "held"
    assert worker.error is None


async def test_a_pool_that_the_jobs_use_up_neither_silences_the_instance_nor_loses_a_connection_to_it(
    tracker, observer, run_worker, pool, redis_url, queue
):
    """Every connection that the pool may have is taken by a job; arq itself needs one now and then."""
    limit = 3
    small = await open_pool(redis_url, queue=queue, max_connections=limit)
    taken, may_end = asyncio.Event(), asyncio.Event()

    async def greedy(ctx):
        connections = [await ctx["redis"].connection_pool.get_connection(*FOR_A_COMMAND) for _ in range(limit - 1)]
        taken.set()
        await may_end.wait()
        for connection in connections:
            await ctx["redis"].connection_pool.release(connection)
        return len(connections)

    await run_worker(tracker.install({"functions": [func(greedy, name="greedy")]}), pool=small)
    queued = await pool.enqueue_job("greedy")
    await asyncio.wait_for(taken.wait(), 10)
    await wait_until(lambda: sees(observer, tracker, queued.job_id), description="the instance and its job are seen")
    (before,) = await observer.instances()

    async def beats():
        (instance,) = await observer.instances()
        return instance.heartbeat_at > before.heartbeat_at

    await wait_until(beats, description="it beats although the pool is used up")
    may_end.set()
    assert await result_of(queued) == limit - 1


async def test_a_server_without_room_for_the_tracker_is_no_fault_of_a_job(make_tracker, run_worker, make_server, pool):
    server = make_server(extra_args=("--maxclients", "2"))
    async with Redis.from_url(server.url, single_connection_client=True) as here:
        there = Redis.from_url(server.url, single_connection_client=True)
        assert (await here.ping(), await there.ping()) == (True, True)
        company = Company()
        tracker = make_tracker(redis_options={"url": server.url}, heartbeat_interval=BEAT, hook_timeout=HOOK_TIMEOUT)
        worker = await run_worker(company.settings(tracker.install))
        assert await result_of(await pool.enqueue_job("succeed", 1)) == 1
        held = await pool.enqueue_job("hold")
        await wait_until(lambda: company.runs[held.job_id], description="the job runs")
        await there.aclose()
        key = f"{tracker.namespace}:job:{held.job_id}"
        await wait_until(lambda: here.exists(key), timeout=RIGHT_AGAIN, description="room was made, and used")
        company.may_end.set()
        assert await result_of(held) == "held"
        await worker.stop()
        company.assert_hooks_kept_their_time()


@pytest.mark.parametrize("seconds", [3 * BEAT, pytest.param(30.0, marks=pytest.mark.soak)])
async def test_a_loop_that_is_blocked_in_the_middle_of_a_flush_loses_nothing(tracker, observer, run_worker, pool, wire, seconds):
    """Three times the heartbeat is what the flush and the watchdog go by; half a minute outlasts every timeout of a socket as well."""
    blocked = asyncio.Event()

    async def block(ctx):
        rule = wire.hold({"EVALSHA"})
        for _ in range(50):
            await asyncio.sleep(0.002)
            if rule.caught:
                break
        time.sleep(seconds)
        rule.release()
        blocked.set()
        return "unblocked"

    worker = await run_worker(tracker.install({"functions": [func(block, name="block"), job]}), url=wire.url)
    first = await pool.enqueue_job("block")
    assert await result_of(first, timeout=seconds + 20) == "unblocked"
    assert await result_of(await pool.enqueue_job("job")) == "done"
    await wait_for_end(worker, 2)
    await worker.stop()
    stats = await observer.stats()
    assert (stats.started, stats.succeeded, stats.recovered) == (2, 2, 0)
    assert await observer.instances() == []


async def test_after_an_outage_what_is_written_is_the_state_of_that_moment(tracker, observer, run_worker, pool, wire, caplog):
    """Hundreds of jobs ran in it: one is in flight at its end, and of one that began before it the end is told."""
    """Of a job that ended in the outage nothing is told, unless an attempt to write had named it: nobody knows what became of that."""
    company = Company()
    worker = await run_worker(company.settings(tracker.install), url=wire.url, max_jobs=50)
    first = await pool.enqueue_job("hold", _job_id="before")
    await wait_until(observer.jobs, description="the first job is in flight")
    rule = wire.reply_with_error("OOM no memory", to={"EVALSHA", "EVAL"})
    with caplog.at_level(logging.INFO, logger="async_tracker"):
        jobs = [await pool.enqueue_job("succeed", number) for number in range(200)]
        await wait_for_end_of(jobs)
        company.may_end.set()
        assert await result_of(first) == "held"
        company.may_end.clear()
        last = await pool.enqueue_job("hold", _job_id="after")
        await wait_until(lambda: company.runs["after"], description="the last job runs")
        await wait_until(lambda: runtime_of(tracker).journal.busy == 1, description="no hook of an ended job is to come")
        wire.forget_commands()
        rule.remove()
        attempted = named_in(rule.caught, jobs)
        await wait_until(lambda: sees(observer, tracker, "after"), timeout=RIGHT_AGAIN, description="the state of this moment is written")
    told = [command for command in wire.commands if command[0] in (b"EVALSHA", b"EVAL")]
    assert named_in(told, jobs) <= attempted
    assert not [word for command in told for word in command if word.startswith(b"{") and named_in([[word]], jobs)], (
        "a record of an ended run"
    )
    company.may_end.set()
    assert await result_of(last) == "held"
    await worker.stop()
    stats = await observer.stats()
    assert (stats.started, stats.succeeded) == (202, 202)
    assert caplog.text.count("tracking is behind") <= 1


def named_in(commands, jobs):
    """Give the ids of the jobs that these commands speak of."""
    text = b" ".join(word for command in commands for word in command)
    return {queued.job_id for queued in jobs if queued.job_id.encode() in text}


async def wait_for_end_of(jobs):
    for queued in jobs:
        await result_of(queued)


async def test_a_redis_that_answers_no_client_holds_up_no_hook_and_costs_no_job(tracker, observer, run_worker, pool, wire, caplog):
    """arq waits for as long as Redis does not answer; what it goes on with then is as it was."""
    company = Company()
    worker = await run_worker(company.settings(tracker.install), url=wire.url)
    held = await pool.enqueue_job("hold")
    await wait_until(lambda: sees(observer, tracker, held.job_id), description="the job is in flight")
    wire.stall()
    jobs = [await pool.enqueue_job("succeed", number) for number in range(20)]
    await wait_until(lambda: "no heartbeat reaches Redis" in caplog.text, timeout=20, description="a heartbeat has failed")
    wire.flow()
    await assert_all_is_well(tracker, observer, worker, company, jobs, held)


async def test_a_redis_that_answers_every_client_late_holds_up_no_hook_and_costs_no_job(tracker, observer, run_worker, pool, wire):
    company = Company()
    worker = await run_worker(company.settings(tracker.install), url=wire.url)
    held = await pool.enqueue_job("hold")
    await wait_until(lambda: sees(observer, tracker, held.job_id), description="the job is in flight")
    wire.delay(to_client=0.3)
    jobs = [await pool.enqueue_job("succeed", number) for number in range(20)]
    assert await result_of(jobs[0]) == 0
    wire.delay()
    await assert_all_is_well(tracker, observer, worker, company, jobs, held)


async def assert_all_is_well(tracker, observer, worker, company, jobs, held):
    assert [await result_of(queued) for queued in jobs] == list(range(20))
    await wait_until(lambda: sees(observer, tracker, held.job_id), timeout=RIGHT_AGAIN, description="the tracker is right again")
    company.may_end.set()
    assert await result_of(held) == "held"
    await wait_for_end(worker, 21)
    await worker.stop()
    company.assert_hooks_kept_their_time()
    assert (await observer.stats()).succeeded == 21
