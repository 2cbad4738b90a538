"""Real dramatiq workers that abort a message, where their middleware was asked for that."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import anyio.to_thread
import dramatiq
import pytest
import redis.asyncio
from dramatiq.broker import MessageProxy
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO, Middleware
from dramatiq.worker import Worker

from async_tracker import AbortOutcome, ConfigError, OrderFailed, Tracker, UnsupportedControl
from async_tracker.integrations.dramatiq import Aborted, TrackerMiddleware
from tests.control.dramatiq_here import MakeBroker, start, the_instance
from tests.harness.inside import abort_soon, brackets_of
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until

LONG = 30.0
"""Seconds that an end may take on a busy machine; a test in which the run goes on waits shorter."""
SHORT = 0.2


class Held(Middleware):
    """A middleware that comes after the tracker's, and holds a message up before its actor begins."""

    def __init__(self) -> None:
        self.is_there = threading.Event()
        self.may_go_on = threading.Event()
        self.may_go_on.set()

    def before_process_message(self, broker: Any, message: MessageProxy) -> None:
        self.is_there.set()
        self.may_go_on.wait(60)


class Stage:
    """One worker with two threads. Its actors answer an interruption by ``answer``, and wait for ``may_end``."""

    def __init__(self, broker: RedisBroker, namespace: str) -> None:
        self.broker = broker
        self.middleware = TrackerMiddleware(Tracker(namespace=namespace, heartbeat_interval=0.5, **KNOWN), abort=True)
        self.held = Held()
        broker.add_middleware(AsyncIO())
        broker.add_middleware(self.middleware)
        broker.add_middleware(self.held)
        self.seen: list[str] = []
        self.answer: Callable[[], Any] | None = None
        self.may_end = threading.Event()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.may_end_there = asyncio.Event()
        soon: dict[str, Any] = {"broker": broker, "min_backoff": 1, "max_backoff": 2}
        self.plain: Any = dramatiq.actor(**soon)(self._plain)
        self.coroutine: Any = dramatiq.actor(**soon)(self._coroutine)
        self.in_c: Any = dramatiq.actor(**soon)(self._in_c)
        self.note: Any = dramatiq.actor(**soon)(self._note)
        self.worker: Worker | None = None

    def _answered(self) -> None:
        self.seen.append("interrupted")
        if self.answer is None:
            raise
        self.answer()

    def _plain(self) -> None:
        self.seen.append("begun")
        try:
            while not self.may_end.is_set():
                time.sleep(0.001)
        except Aborted:
            self._answered()
        finally:
            self.seen.append("finally")

    async def _coroutine(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.seen.append("begun")
        try:
            await self.may_end_there.wait()
        except asyncio.CancelledError:
            self.seen.append("interrupted")
            if self.answer is not None:
                await self.answer()
            raise
        finally:
            self.seen.append("finally")

    def _in_c(self) -> None:
        self.seen.append("begun")
        self.may_end.wait(60)

    def _note(self, name: str) -> None:
        self.seen.append(name)

    async def has_seen(self, what: str) -> None:
        await wait_until(lambda: what in self.seen, description=f"{what!r} is seen")


@pytest.fixture
async def stage(make_broker: MakeBroker, namespace: str) -> AsyncIterator[Stage]:
    made = Stage(make_broker(), namespace)
    made.worker = await start(made.broker)
    yield made
    made.may_end.set()
    made.held.may_go_on.set()
    if made.loop is not None:
        made.loop.call_soon_threadsafe(made.may_end_there.set)
    await anyio.to_thread.run_sync(made.worker.stop)


async def dead_letters(client: redis.asyncio.Redis, namespace: str) -> int:
    return int(await client.zcard(f"{namespace}:default.XQ"))


async def nothing_is_held(client: redis.asyncio.Redis, namespace: str) -> None:
    """No message waits, is held or comes later, and no mark is left."""

    async def gone() -> bool:
        marks = [key async for key in client.scan_iter("*receipt:abort:*")]
        acks = [key async for key in client.scan_iter(f"{namespace}:__acks__.*")]
        waiting = [await client.hlen(f"{namespace}:{queue}.msgs") for queue in ("default", "default.DQ")]
        return not marks and not acks and waiting == [0, 0]

    await wait_until(gone, description="nothing is left of the message")


async def test_an_aborted_message_cleans_up_and_is_a_dead_letter(
    stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str
):
    message = stage.plain.send()
    await stage.has_seen("begun")
    found = await abort_soon(observer, message.message_id, wait=LONG)
    assert (found.outcome, found.says, found.threads) == (
        AbortOutcome.ABORTED,
        "it has ended, and does not run again: its message is a dead letter",
        (),
    )
    assert stage.seen == ["begun", "interrupted", "finally"]
    await nothing_is_held(redis_client, namespace)
    assert await dead_letters(redis_client, namespace) == 1

    async def is_counted() -> bool:
        stats = await observer.stats()
        return (stats.aborted, stats.retried, stats.failed) == (1, 0, 0)

    await wait_until(is_counted, description="one run is aborted")
    for number in range(4):  # both of its threads are there
        stage.note.send(f"after-{number}")
    await wait_until(lambda: len(stage.seen) == 7, description="the worker works on")
    again = await observer.abort(message.message_id, wait=SHORT)
    assert again.outcome is AbortOutcome.REFUSED


async def test_an_aborted_coroutine_may_clean_up_for_longer_than_dramatiq_would_wait(
    stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str
):
    stage.answer = stage.may_end_there.wait
    message = stage.coroutine.send()
    await stage.has_seen("begun")
    found = await abort_soon(observer, message.message_id, wait=1.5)
    assert found.outcome is AbortOutcome.GOES_ON
    assert found.chain is not None
    (behind,) = found.chain.branches
    assert [frame.rpartition(" ")[2] for frame in behind.frames][-2:] == ["_coroutine", "wait"]
    assert stage.seen == ["begun", "interrupted"]
    assert stage.loop is not None
    stage.loop.call_soon_threadsafe(stage.may_end_there.set)
    await nothing_is_held(redis_client, namespace)
    assert stage.seen == ["begun", "interrupted", "finally"]
    assert await dead_letters(redis_client, namespace) == 1


async def test_an_aborted_coroutine_is_over(stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str):
    message = stage.coroutine.send()
    await stage.has_seen("begun")
    assert (await abort_soon(observer, message.message_id, wait=LONG)).outcome is AbortOutcome.ABORTED
    await nothing_is_held(redis_client, namespace)
    assert stage.seen == ["begun", "interrupted", "finally"]


async def test_a_message_that_answers_with_retry_does_not_run_again(
    stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str
):
    def once_more() -> None:
        raise dramatiq.errors.Retry("again", delay=1)

    stage.answer = once_more
    message = stage.plain.send()
    await stage.has_seen("begun")
    assert (await abort_soon(observer, message.message_id, wait=LONG)).outcome is AbortOutcome.ABORTED
    await nothing_is_held(redis_client, namespace)
    assert stage.seen == ["begun", "interrupted", "finally"]


async def test_a_message_that_answers_with_an_error_or_a_result_of_its_own_has_ended_by_itself(
    stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str
):
    def fail() -> None:
        raise ValueError("its own")

    for answer, how in ((fail, "failed"), (lambda: None, "succeeded")):
        stage.seen.clear()
        stage.answer = answer
        message = stage.plain.send()
        await stage.has_seen("begun")
        found = await abort_soon(observer, message.message_id, wait=LONG)
        says = f"it has swallowed the interruption, and ended by itself: {how}"
        assert (found.outcome, found.says) == (AbortOutcome.ENDED_BEFORE, says)
        await nothing_is_held(redis_client, namespace)
        assert stage.seen == ["begun", "interrupted", "finally"]


async def test_a_thread_in_a_call_that_no_exception_reaches_goes_on_and_ends_when_that_returns(
    stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str
):
    message = stage.in_c.send()
    await stage.has_seen("begun")
    found = await abort_soon(observer, message.message_id, wait=SHORT)
    assert found.outcome is AbortOutcome.GOES_ON
    assert found.chain is not None
    assert [frame.rpartition(" ")[2] for frame in found.chain.frames][:2] == ["_in_c", "wait"]
    stage.may_end.set()
    await nothing_is_held(redis_client, namespace)
    assert await dead_letters(redis_client, namespace) == 1


async def test_a_message_whose_actor_has_not_begun_is_left_alone(
    stage: Stage, observer: Tracker, redis_client: redis.asyncio.Redis, namespace: str
):
    stage.held.may_go_on.clear()
    message = stage.note.send("it ran")
    await anyio.to_thread.run_sync(stage.held.is_there.wait)
    found = await abort_soon(observer, message.message_id, wait=SHORT)
    assert (found.outcome, found.says) == (
        AbortOutcome.GOES_ON,
        "nothing was done: its actor has not begun; a middleware of the worker may hold it up",
    )
    stage.held.may_go_on.set()
    await stage.has_seen("it ran")
    await nothing_is_held(redis_client, namespace)
    assert await dead_letters(redis_client, namespace) == 0


async def test_a_message_that_does_not_run_is_refused_and_it_is_said_where_it_is(stage: Stage, observer: Tracker):
    """Two run, two are fetched, and the others wait. One of these has in its text the id of a message that is not there."""
    assert stage.worker is not None
    queued = [stage.plain.send().message_id for _ in range(5)]
    stage.note.send("a message that has ended")
    delayed = stage.note.send_with_options(args=("later",), delay=600_000).message_id
    queue = stage.worker.work_queue
    await wait_until(lambda: (len(stage.seen), queue.qsize()) == (2, 2), description="two run, and two are fetched")
    fetched = f"it does not run, or has only just begun: {await the_instance(observer)} has fetched it from 'default'."
    waits = "it does not run: it waits in 'default', and dramatiq cannot take one message out of a queue."
    put_off = "it does not run: it is put off, and comes to 'default' when it is due."
    unknown = "it does not run, as far as is known: it has ended, or there is no such job"
    expected = {queued[2]: fetched, queued[3]: fetched, queued[4]: waits, delayed: put_off, "a message that has ended": unknown}
    for message_id, says in expected.items():
        found = await observer.abort(message_id, wait=SHORT)
        assert (found.outcome, found.says.partition(" Abort it")[0]) == (AbortOutcome.REFUSED, says)
    stage.may_end.set()
    await stage.has_seen("a message that has ended")
    assert stage.seen.count("begun") == 5, "nothing was done to those that were refused"


async def test_where_it_cannot_be_noted_nothing_is_done(make_broker: MakeBroker, namespace: str, observer: Tracker, wire: Any):
    stage = Stage(make_broker(wire.url), namespace)
    worker = await start(stage.broker)
    try:
        message = stage.plain.send()
        await stage.has_seen("begun")
        await wait_until(observer.jobs, description="the message is listed")
        wire.reply_with_error("NOPERM no permission", to=lambda command: command[0] == b"SET" and b"receipt:abort:" in command[1])
        with pytest.raises(OrderFailed, match="nothing was done: that it is being aborted cannot be noted in Redis"):
            await observer.abort(message.message_id, wait=LONG)
        stage.may_end.set()
        await stage.has_seen("finally")
        assert stage.seen == ["begun", "finally"]
    finally:
        stage.may_end.set()
        await anyio.to_thread.run_sync(worker.stop)


async def test_where_it_was_not_asked_for_it_is_said_how(make_broker: MakeBroker, namespace: str, observer: Tracker):
    broker = make_broker()
    broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, heartbeat_interval=0.5, **KNOWN)))
    may_end, begun = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        may_end.wait(60)

    actor = dramatiq.actor(broker=broker)(wait)
    worker = await start(broker)
    try:
        message = actor.send()
        await anyio.to_thread.run_sync(begun.wait)
        with pytest.raises(UnsupportedControl, match=r"write TrackerMiddleware\(tracker, abort=True\)"):
            await abort_soon(observer, message.message_id, wait=SHORT)
    finally:
        may_end.set()
        await anyio.to_thread.run_sync(worker.stop)
    with pytest.raises(ConfigError, match="write True or False"):
        TrackerMiddleware(Tracker(namespace=namespace), abort="yes")


async def test_among_hundreds_of_short_messages_only_those_are_hit_that_are_meant(
    make_broker: MakeBroker, namespace: str, redis_client: redis.asyncio.Redis
):
    """A thread aborts what it finds in flight, every second message, as fast as it can: most at about the moment of their end."""
    broker = make_broker()
    middleware = TrackerMiddleware(Tracker(namespace=namespace, **KNOWN), abort=True)
    broker.add_middleware(middleware)
    runs: Counter[int] = Counter()
    ended: set[int] = set()

    def work(number: int) -> None:
        runs[number] += 1
        time.sleep(0.0005)
        ended.add(number)

    actor = dramatiq.actor(broker=broker, actor_name="work")(work)
    count = 400
    numbers = {actor.send(number).message_id: number for number in range(count)}
    worker = await start(broker, threads=4)
    hit: set[int] = set()
    is_over = threading.Event()

    def abort_all() -> None:
        while not is_over.is_set():
            for message_id, bracket in brackets_of(middleware).items():
                if numbers[message_id] % 2 == 0 and bracket.interrupt():
                    hit.add(numbers[message_id])

    aborting = threading.Thread(target=abort_all)
    aborting.start()
    try:

        async def is_done() -> bool:
            return int(await redis_client.hlen(f"{namespace}:default.msgs")) == 0

        await wait_until(is_done, timeout=100.0, description="every message is acknowledged, or a dead letter")
        threads_alive = [thread.is_alive() for thread in worker.workers]
    finally:
        is_over.set()
        aborting.join()
        await anyio.to_thread.run_sync(worker.stop)
    assert threads_alive == [True] * 4
    assert set(runs.values()) == {1}
    assert set(range(1, count, 2)) <= ended
    assert await dead_letters(redis_client, namespace) >= count - len(ended)
    assert set(range(count)) - ended <= hit
    assert hit
