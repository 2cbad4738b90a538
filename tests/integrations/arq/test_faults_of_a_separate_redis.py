"""The tracker's Redis is another one than arq's, and something happens to it: no job, no hook and no worker may notice.

Each fault begins while a job runs and lasts until jobs of every kind have ended in it, and until a heartbeat and a write of the
tracker's have failed in it, by a timeout where nothing answers; some are there before the worker starts.
When it ends the tracker must be right again, with that job in flight and no other.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from async_tracker import Tracker
from async_tracker.connections.access import SOCKET_TIMEOUT
from async_tracker.store.scripts import SCRIPTS as FORGOTTEN
from tests.harness.servers import address_of, database_of
from tests.harness.wait import lived, wait_until
from tests.harness.wire import WireProxy
from tests.integrations.arq.running import open_pool, result_of
from tests.integrations.arq.with_and_without_tracker import HOOK_TIMEOUT, MARGIN, Company, has_met_the_fault, sees, story_of

BEAT = 1.0
RIGHT_AGAIN = 2 * BEAT + 1.0
"""Two beats, and a second for a machine that is busy with other tests."""

SCRIPTS = {"EVALSHA", "EVAL"}

REFUSALS = {
    "no memory": "OOM command not allowed when used memory > 'maxmemory'.",
    "a replica": "READONLY You can't write against a read only replica.",
    "loading": "LOADING Redis is loading the dataset in memory",
    "busy": "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "no password": "NOAUTH Authentication required.",
    "no permission": "NOPERM this user has no permissions to run the 'evalsha' command",
    "master down": "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "misconfigured": "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "any error": "ERR something that nobody has heard of",
}


@asynccontextmanager
async def refused(wire: WireProxy) -> AsyncIterator[None]:
    wire.refuse()
    yield
    wire.accept()


@asynccontextmanager
async def cut_again_and_again(wire: WireProxy) -> AsyncIterator[None]:
    async def cut() -> None:
        while True:
            wire.cut()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(cut())
    yield
    task.cancel()


@asynccontextmanager
async def never_answers(wire: WireProxy) -> AsyncIterator[None]:
    wire.stall()
    yield
    wire.flow()


@asynccontextmanager
async def answers_late(wire: WireProxy) -> AsyncIterator[None]:
    wire.delay(to_client=2.0)  # four times the socket timeout of this tracker, as ten seconds are to the default's five
    yield
    wire.delay()


@asynccontextmanager
async def loses_replies(wire: WireProxy) -> AsyncIterator[None]:
    """Every reply is on its way when the connection is reset: what was asked was done, and nobody knows."""
    wire.delay(to_client=0.2)

    async def cut() -> None:
        while True:
            await asyncio.sleep(0.1)
            wire.cut()

    task = asyncio.create_task(cut())
    yield
    task.cancel()
    wire.delay()


@asynccontextmanager
async def answers_nonsense(wire: WireProxy) -> AsyncIterator[None]:
    rule = wire.reply_with_error("", to=SCRIPTS)
    rule.reply = b"+what\r\n"
    yield
    rule.remove()


@asynccontextmanager
async def shakes_hands_with_nonsense(wire: WireProxy) -> AsyncIterator[None]:
    """Each new connection is told things that no server says, and there are many new connections."""
    rule = wire.reply_with_error("", to={"CLIENT", "INFO"})
    rule.reply = b"*1\r\n:7\r\n"
    async with cut_again_and_again(wire):
        yield
    rule.remove()


@asynccontextmanager
async def halves(upstream: str | tuple[str, int]) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """Forward to a server; while the event is set every reply is reset after its first bytes. Gives the port, and the event."""
    broken, writers, tasks = asyncio.Event(), [], []

    async def forward(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, ends: list[asyncio.StreamWriter], *, replies: bool
    ) -> None:
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65_536):
                half = replies and broken.is_set()
                writer.write(chunk[:3] if half else chunk)
                await writer.drain()
                if half:
                    break
        for end in ends:
            end.transport.abort() if broken.is_set() else end.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connect = asyncio.open_unix_connection(upstream) if isinstance(upstream, str) else asyncio.open_connection(*upstream)
        there_reader, there_writer = await connect
        ends = [writer, there_writer]
        writers.extend(ends)
        tasks.append(asyncio.create_task(forward(reader, there_writer, ends, replies=False)))
        tasks.append(asyncio.create_task(forward(there_reader, writer, ends, replies=True)))

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield listener.sockets[0].getsockname()[1], broken
    listener.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*tasks, return_exceptions=True)


FAULTS: dict[str, Callable[[WireProxy], AbstractAsyncContextManager[None]]] = {
    "refused": refused,
    "cut again and again": cut_again_and_again,
    "never answers": never_answers,
    "answers late": answers_late,
    "loses replies": loses_replies,
    "answers nonsense": answers_nonsense,
    "shakes hands with nonsense": shakes_hands_with_nonsense,
}


@pytest.fixture
def apart(wire: WireProxy, make_tracker: Callable[..., Tracker]) -> Tracker:
    """A tracker that reaches its Redis through the weather, while arq does not."""
    return make_tracker(
        redis_options={"url": wire.url, "socket_timeout": 0.5, "socket_connect_timeout": 0.5},
        heartbeat_interval=BEAT,
        hook_timeout=HOOK_TIMEOUT,
    )


async def assert_no_harm(
    tracker: Tracker,
    observer: Tracker,
    run_worker: Any,
    pool: Any,
    weather: Any,
    *,
    has_met_it: Callable[[], Any] | None = None,
    within: float = RIGHT_AGAIN,
) -> None:
    """Run the same jobs without the tracker, and with it in this weather; compare, and look whether it is right again."""
    untouched = Company()
    expected = await story_of(untouched, await run_worker(untouched.settings(dict)), pool, prefix="a-")
    company = Company()
    worker = await run_worker(company.settings(tracker.install))

    async def right_again() -> None:
        await wait_until(lambda: sees(observer, tracker, "b-hold"), timeout=within, description="the tracker is right again")

    met = has_met_it or (lambda: has_met_the_fault(tracker))
    assert await story_of(company, worker, pool, prefix="b-", weather=weather, has_met_it=met, on_change=right_again) == expected
    if tracker.settings.durable:
        company.assert_hooks_were_in_time()
    else:
        company.assert_hooks_kept_their_time()

    async def nobody_is_left() -> bool:
        await observer.recover()
        return not await observer.instances() and not await observer.orphans()

    await wait_until(nobody_is_left, timeout=30, description="it has left, or was found gone where a quarter of a second was too short")


CUT = {"cut again and again", "shakes hands with nonsense"}
"""Faults that many a short write gets through; that they were met is told by how often the tracker had to connect."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_of_the_trackers_redis_is_no_fault_of_a_job(apart, observer, run_worker, pool, wire, fault):
    met = (lambda: wire.connection_count > 10) if fault in CUT else None
    await assert_no_harm(apart, observer, run_worker, pool, lambda: FAULTS[fault](wire), has_met_it=met)
    stats = await observer.stats()
    assert (stats.succeeded, stats.failed, stats.retried, stats.timed_out) == (3 * 3 + 1, 3, 6, 3)


@pytest.mark.soak
async def test_a_redis_that_answers_ten_seconds_late_is_no_fault_of_a_job_at_default_timeouts(
    make_tracker, observer, run_worker, pool, wire
):
    @asynccontextmanager
    async def ten_seconds_late() -> AsyncIterator[None]:
        wire.delay(to_client=10.0)
        yield
        wire.delay()

    tracker = make_tracker(redis_options={"url": wire.url}, heartbeat_interval=5.0, hook_timeout=HOOK_TIMEOUT)
    within = 2 * 5.0 + SOCKET_TIMEOUT  # what was asked in the fault is given up by then
    await assert_no_harm(tracker, observer, run_worker, pool, ten_seconds_late, within=within)
    assert (await observer.stats()).succeeded == 10


@pytest.mark.parametrize("fault", ["refused", "never answers", "answers late", "answers nonsense"])
async def test_where_starts_are_durable_a_fault_costs_a_job_the_time_of_its_hook_and_nothing_else(
    make_tracker, observer, run_worker, pool, wire, fault
):
    options = {"url": wire.url, "socket_timeout": 0.5, "socket_connect_timeout": 0.5}
    durable = make_tracker(redis_options=options, heartbeat_interval=BEAT, hook_timeout=HOOK_TIMEOUT, durable=True)
    await assert_no_harm(durable, observer, run_worker, pool, lambda: FAULTS[fault](wire))
    assert (await observer.stats()).succeeded == 10


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_a_refusal_of_the_trackers_redis_is_no_fault_of_a_job(apart, observer, run_worker, pool, wire, refusal):
    @asynccontextmanager
    async def refuses() -> AsyncIterator[None]:
        rule = wire.reply_with_error(REFUSALS[refusal], to=SCRIPTS)
        yield
        rule.remove()

    await assert_no_harm(apart, observer, run_worker, pool, refuses)
    stats = await observer.stats()
    assert (stats.started, stats.succeeded, stats.failed, stats.retried, stats.timed_out) == (22, 10, 3, 6, 3)


async def test_a_reset_in_the_middle_of_every_reply_is_no_fault_of_a_job(make_tracker, observer, run_worker, pool, redis_url):
    async with halves(address_of(redis_url)) as (port, broken):

        @asynccontextmanager
        async def half_replies() -> AsyncIterator[None]:
            broken.set()
            yield
            broken.clear()

        options = {"host": "127.0.0.1", "port": port, "db": database_of(redis_url)}
        tracker = make_tracker(redis_options=options, heartbeat_interval=BEAT, hook_timeout=HOOK_TIMEOUT)
        await assert_no_harm(tracker, observer, run_worker, pool, half_replies)
        stats = await observer.stats()
        assert (stats.started, stats.succeeded, stats.failed) == (22, 10, 3)


@pytest.mark.parametrize("fault", ["refused", "never answers", "answers late", "answers nonsense", "shakes hands with nonsense"])
async def test_a_worker_that_starts_in_the_fault_works_and_is_tracked_after_it(apart, observer, run_worker, pool, wire, fault):
    company = Company()
    async with FAULTS[fault](wire):
        await run_worker(company.settings(apart.install))
        job = await pool.enqueue_job("hold")
        await wait_until(lambda: company.runs[job.job_id], description="the job runs although nobody tracks it")
    await wait_until(lambda: sees(observer, apart, job.job_id), timeout=RIGHT_AGAIN, description="the instance and its job are known")
    company.may_end.set()
    assert await result_of(job) == "held"
    company.assert_hooks_kept_their_time()


async def test_where_neither_redis_answers_and_another_worker_was_left_a_start_takes_no_longer_than_one_hook(
    make_tracker, wire, redis_url, queue, caplog
):
    hook_timeout = 1.5
    tracker = make_tracker(redis_options={"url": wire.url}, hook_timeout=hook_timeout)
    with WireProxy(address_of(redis_url), database=database_of(redis_url)) as slow:
        pool = await open_pool(slow.url, queue=queue)
        await tracker.on_startup({"redis": pool})
        slow.stall()
        wire.stall()
        async with lived() as taken:
            await tracker.on_startup({"redis": pool})
        assert taken.seconds < hook_timeout + MARGIN
        assert "and goes on in the background" in caplog.text
        slow.flow()
        wire.flow()
        await tracker.on_shutdown({"redis": pool})
        assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
        await pool.aclose()


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_worker_that_ends_in_the_fault_ends_in_time(apart, observer, run_worker, pool, wire, caplog, fault):
    company = Company()
    worker = await run_worker(company.settings(apart.install))
    company.may_end.set()
    assert await result_of(await pool.enqueue_job("hold")) == "held"
    await wait_until(observer.instances, description="the instance is registered")
    async with FAULTS[fault](wire):
        await worker.stop()
    company.assert_hooks_kept_their_time()
    assert [record.message for record in caplog.records if is_ours(record) and record.levelno >= logging.ERROR] == []
    await wait_until(lambda: settled(observer), timeout=30, description="nothing of the instance is left")


async def settled(observer: Tracker) -> bool:
    """Let somebody sweep, and tell whether no instance is left."""
    await observer.recover()
    return not await observer.instances()


async def test_forgotten_scripts_are_sent_again_without_a_word(make_tracker, observer, run_worker, pool, wire, redis_client, caplog):
    tracker = make_tracker(redis_options={"url": wire.url}, heartbeat_interval=BEAT)  # a slow start would be told

    @asynccontextmanager
    async def forgetful() -> AsyncIterator[None]:
        await redis_client.script_flush()
        wire.forget_commands()
        yield
        await redis_client.script_flush()

    def has_met_it() -> bool:
        sent = {command[1] for command in wire.commands if command[0] == b"EVAL"}
        return {FORGOTTEN[name].text.encode() for name in ("beat", "write")} <= sent

    with caplog.at_level(logging.DEBUG, logger="async_tracker"):
        await assert_no_harm(tracker, observer, run_worker, pool, forgetful, has_met_it=has_met_it)
    assert [record.message for record in caplog.records if is_ours(record) and record.levelno >= logging.WARNING] == []


def is_ours(record: logging.LogRecord) -> bool:
    return record.name == "async_tracker"


@pytest.mark.parametrize("fault", ["refused", "never answers", "answers nonsense"])
async def test_a_fault_is_logged_once_and_once_that_it_is_over(apart, observer, run_worker, pool, wire, caplog, fault):
    @asynccontextmanager
    async def noticed() -> AsyncIterator[None]:
        async with FAULTS[fault](wire):
            yield

    with caplog.at_level(logging.INFO, logger="async_tracker"):
        await assert_no_harm(apart, observer, run_worker, pool, noticed)
    said = [record.message.split(":")[0] for record in caplog.records if is_ours(record)]
    assert said.count("no heartbeat reaches Redis, jobs keep running") <= 1
    assert said.count("tracking is behind, jobs keep running") == 1
    assert said.count("tracking is up to date again") == 1
    assert said.count("heartbeats reach Redis again") == said.count("no heartbeat reaches Redis, jobs keep running")
    assert said.count("sweeps fail, so this worker recovers nothing") <= 1
    assert len(said) == len(set(said)), said
    ours = [text for text in said if not text.startswith(("registration takes longer", "Redis refuses to keep the history"))]
    assert len(ours) <= 6, said  # begun and over, of three loops
