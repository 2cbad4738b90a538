"""The middleware in a worker of the test's own process."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import dramatiq
import pytest
import redis
from dramatiq.broker import Broker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.brokers.stub import StubBroker
from dramatiq.middleware import Interrupt
from dramatiq.worker import Worker

from async_tracker import Event, LeaseLost, Tracker, current_job
from async_tracker.integrations.dramatiq import TrackerMiddleware
from async_tracker.store.instance_record import Description
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until, wait_until_sync
from tests.harness.wire import WireProxy

StartWorker = Callable[[Broker], Worker]


@pytest.fixture
def start_worker() -> Iterator[StartWorker]:
    started: list[Worker] = []

    def start(broker: Broker) -> Worker:
        worker = Worker(broker, worker_threads=2, worker_timeout=50)
        worker.start()
        started.append(worker)
        return worker

    yield start
    for worker in started:
        if worker.workers and worker.workers[0].is_alive():
            worker.stop()
        worker.broker.close()


@pytest.fixture
def broker(redis_url: str) -> Iterator[RedisBroker]:
    broker = RedisBroker(url=redis_url)
    yield broker
    broker.client.connection_pool.disconnect()


def tracked(broker: Broker, tracker: Tracker) -> None:
    broker.add_middleware(TrackerMiddleware(tracker))


async def stop(worker: Worker) -> None:
    """Stop a worker without blocking the loop that looks at it."""
    await anyio.to_thread.run_sync(worker.stop)


async def test_without_another_redis_the_tracker_uses_the_brokers(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, redis_url: str, no_leaks: None
):
    tracker = Tracker(namespace=namespace, **KNOWN)
    tracked(broker, tracker)
    worker = start_worker(broker)
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:
        [instance] = await observer.instances()
        assert instance.instance_id == tracker.instance_id
        assert [one.instance_id for one in await tracker.instances()] == [tracker.instance_id]
        await tracker.aclose()
        await stop(worker)
        assert await observer.instances() == []
    assert tracker.instance_id is None


async def test_a_process_that_only_enqueues_is_no_instance_and_starts_no_thread(broker: RedisBroker, namespace: str):
    before = set(threading.enumerate())  # those of other tests may end meanwhile
    tracked(broker, Tracker(namespace=namespace, **KNOWN))
    actor = dramatiq.actor(actor_name="nothing", broker=broker)(lambda: None)
    actor.send()
    assert set(threading.enumerate()) <= before
    assert broker.client.exists(f"{namespace}:instances") == 0


async def test_a_worker_that_starts_again_in_the_same_process_is_another_instance(
    broker: RedisBroker, start_worker: StartWorker, namespace: str
):
    tracker = Tracker(namespace=namespace, **KNOWN)
    tracked(broker, tracker)
    worker = start_worker(broker)
    first = tracker.instance_id
    await stop(worker)
    broker.middleware = [one for one in broker.middleware if type(one).__name__ != "_WorkerMiddleware"]
    worker = start_worker(broker)
    assert tracker.instance_id not in (first, None)
    await stop(worker)


async def test_a_queue_that_is_declared_while_the_worker_runs_is_recovered_too(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, redis_url: str
):
    tracked(broker, Tracker(namespace=namespace, **KNOWN))
    worker = start_worker(broker)
    dramatiq.actor(actor_name="later", queue_name="later", broker=broker)(lambda: None)
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:

        async def is_known() -> bool:
            return "later" in (await observer.instances())[0].queues

        await wait_until(is_known, timeout=30, description="the new queue is known")
        await stop(worker)


async def test_durable_waits_until_the_start_is_written(broker: RedisBroker, start_worker: StartWorker, namespace: str):
    seen: list[Any] = []
    tracked(broker, Tracker(namespace=namespace, durable=True, hook_timeout=30.0, record_args=True))

    def look(number: int) -> None:
        job = current_job()
        assert job is not None
        seen.append(broker.client.get(f"{namespace}:job:dramatiq:{job.job_id}"))

    actor = dramatiq.actor(broker=broker)(look)
    worker = start_worker(broker)
    actor.send(42)
    await wait_until(lambda: seen, timeout=30, description="the message has run")
    assert b'"args":"42"' in seen[0]
    await stop(worker)


async def test_a_plain_actor_can_ask_whether_its_message_is_still_its_own(broker: RedisBroker, start_worker: StartWorker, namespace: str):
    answers: list[str] = []
    tracked(broker, Tracker(namespace=namespace, **KNOWN))

    def ask() -> None:
        job = current_job()
        assert job is not None
        asyncio.run(job.ensure_owned())
        answers.append("mine")
        broker.client.delete(f"dramatiq:__acks__.{broker.broker_id}.default")  # as when somebody else was given it
        try:
            asyncio.run(job.ensure_owned())
        except LeaseLost:
            answers.append("lost" if not job.owned else "confused")

    actor = dramatiq.actor(broker=broker, max_retries=0)(ask)
    worker = start_worker(broker)
    actor.send()
    await wait_until(lambda: len(answers) == 2, timeout=30, description="the actor has asked twice")
    assert answers == ["mine", "lost"]
    await stop(worker)


async def test_callbacks_hear_what_this_process_finds_though_its_loop_is_in_a_thread(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, wire: WireProxy
):
    heard: list[str | None] = []
    tracker = Tracker(namespace=namespace, sweep_interval=0.1, **KNOWN)
    tracked(broker, tracker)

    @tracker.on("instance_dead")
    async def note(event: Event) -> None:
        heard.append(event.instance_id)

    worker = start_worker(broker)
    async with Tracker(namespace=namespace, redis_options={"url": wire.url}) as dying:
        runtime = dying.footing.runtime(
            Description(library="dramatiq", host="h", host_id="h", pid=1, broker="none"), make_adapter=lambda link: None
        )
        await runtime.start()
        wire.refuse()  # its connections go, and it comes back on no other
        await wait_until(lambda: heard == [runtime.instance_id], timeout=30, description="the death is heard of")
        await stop(worker)


async def test_an_interrupt_of_somebody_else_is_an_abort(broker: RedisBroker, start_worker: StartWorker, namespace: str, redis_url: str):
    class Abort(Interrupt):
        """What dramatiq-abort raises in the thread."""

    def interrupted() -> None:
        raise Abort

    tracked(broker, Tracker(namespace=namespace, **KNOWN))
    actor = dramatiq.actor(broker=broker, max_retries=0)(interrupted)
    worker = start_worker(broker)
    actor.send()
    await wait_until(lambda: broker.do_qsize("default") == 0, timeout=30, description="the message is done")
    await stop(worker)
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:
        assert (await observer.stats()).aborted == 1


async def test_with_a_redis_that_cannot_be_reached_messages_run_as_without_a_tracker(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, caplog: pytest.LogCaptureFixture
):
    done: list[int] = []
    tracked(broker, Tracker(namespace=namespace, redis_options={"url": "redis://127.0.0.1:1/0"}))
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    worker = start_worker(broker)
    for number in range(50):
        actor.send(number)
    await wait_until(lambda: len(done) == 50, timeout=20, description="all messages have run")
    await stop(worker)
    assert len([one for one in caplog.records if one.name == "async_tracker" and one.levelno >= logging.ERROR]) == 0


async def test_with_a_redis_that_does_not_answer_no_message_waits_for_the_tracker(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, wire: WireProxy, caplog: pytest.LogCaptureFixture
):
    done: list[int] = []
    tracked(broker, Tracker(namespace=namespace, redis_options={"url": wire.url}))
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    worker = start_worker(broker)
    wire.stall()
    for number in range(200):
        actor.send(number)
    # 200 times a hook's time, by two threads, would be longer
    await wait_until(lambda: len(done) == 200, timeout=20, description="all messages have run")
    wire.flow()
    await stop(worker)
    assert [one for one in caplog.records if one.name == "async_tracker" and one.levelno >= logging.ERROR] == []


async def test_while_the_brokers_redis_refuses_marks_messages_run_unmarked(redis_url: str, start_worker: StartWorker, namespace: str):
    done: list[int] = []
    broker = RedisBroker(url=redis_url)
    tracked(broker, Tracker(namespace=namespace, **KNOWN))
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    worker = start_worker(broker)
    instance_id = broker.client.zrange(f"{namespace}:instances", 0, 0)[0].decode()  # type: ignore[index]
    broker.client.set(f"{namespace}:marks:{instance_id}", "of another type")
    for number in range(20):
        actor.send(number)
    await wait_until(lambda: len(done) == 20, timeout=60, description="all messages have run")
    await stop(worker)
    broker.client.connection_pool.disconnect()


async def test_a_broker_that_is_not_redis_is_tracked_and_said_to_recover_by_itself(
    start_worker: StartWorker, namespace: str, redis_url: str, caplog: pytest.LogCaptureFixture, no_leaks: None
):
    caplog.set_level(logging.INFO, logger="async_tracker")
    broker = StubBroker()
    begun, may_end = threading.Event(), threading.Event()

    def wait() -> None:
        begun.set()
        may_end.wait(30)

    tracked(broker, Tracker(namespace=namespace, redis_options={"url": redis_url}, **KNOWN))
    actor = dramatiq.actor(broker=broker)(wait)
    worker = start_worker(broker)
    message = actor.send()
    wait_until_sync(begun.is_set, timeout=30, description="the message runs")
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:
        job = await wait_until(lambda: observer.job(message.message_id), timeout=30, description="the message is in flight")
        assert job is not None
        assert job.function == "wait"
        may_end.set()
        await stop(worker)
        assert await observer.jobs() == []
        assert (await observer.stats()).succeeded == 1
    said = [one.getMessage() for one in caplog.records if "StubBroker" in one.getMessage()]
    assert said == ["StubBroker gives back itself what a dead worker held: the tracker only tracks"]


async def test_a_hook_that_fails_is_said_once_and_the_messages_run(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, caplog: pytest.LogCaptureFixture
):
    done: list[int] = []

    def unshowable(text: str) -> str:
        raise redis.RedisError("nothing to show")

    tracked(broker, Tracker(namespace=namespace, record_args=True, redact=unshowable))
    actor = dramatiq.actor(actor_name="append", broker=broker)(done.append)
    worker = start_worker(broker)
    for number in range(3):
        actor.send(number)
    await wait_until(lambda: len(done) == 3, timeout=30, description="all messages have run")
    await stop(worker)
    assert [one for one in caplog.records if one.name == "async_tracker" and one.levelno >= logging.ERROR] == []


async def test_a_message_that_was_looked_at_while_it_ran_is_counted_once_and_gone(
    broker: RedisBroker, start_worker: StartWorker, namespace: str, redis_url: str
):
    """The journal has it then; the others are counted by the threads that run them."""
    may_end, quick = threading.Event(), list[int]()
    tracked(broker, Tracker(namespace=namespace))

    def wait() -> None:
        may_end.wait()

    slow, soon = dramatiq.actor(broker=broker, actor_name="slow")(wait), dramatiq.actor(broker=broker, actor_name="soon")(quick.append)
    worker = start_worker(broker)
    slow.send()
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:
        try:
            await wait_until(observer.jobs, timeout=30, description="it is seen")
            for number in range(100):
                soon.send(number)
            await wait_until(lambda: len(quick) == 100, timeout=30, description="the others have run")
        finally:
            may_end.set()

        async def is_gone() -> bool:
            return await observer.jobs() == []

        await wait_until(is_gone, timeout=30, description="it is gone")
        await stop(worker)
        for name, count in (("slow", 1), ("soon", 100)):
            stats = await observer.stats(function=name)
            assert (stats.started, stats.succeeded) == (count, count)
        (soon_stats,) = (await observer.stats(function="soon", window=3600.0)).functions
        assert soon_stats.run_time_p99 is not None
        assert soon_stats.queue_wait_p99 is not None
