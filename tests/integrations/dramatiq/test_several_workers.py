"""Several dramatiq workers of one tracker in one process: each is an instance, and each message is the run of the worker that has it."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio.to_thread
import dramatiq
import pytest
from dramatiq.brokers.redis import RedisBroker
from dramatiq.errors import Retry
from dramatiq.middleware import Interrupt, TimeLimitExceeded
from dramatiq.middleware.shutdown import Shutdown
from dramatiq.worker import Worker

from async_tracker import Tracker, current_job
from async_tracker.integrations.dramatiq import TrackerMiddleware
from async_tracker.integrations.dramatiq.outcomes import Ending, outcome
from tests.harness.forking import ROOT
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until

MakeBroker = Callable[..., RedisBroker]


@pytest.fixture
def make_broker(redis_url: str, namespace: str) -> Iterator[MakeBroker]:
    made: list[RedisBroker] = []

    def make() -> RedisBroker:
        made.append(RedisBroker(url=redis_url, namespace=f"{namespace}-{len(made)}"))
        return made[-1]

    yield make
    for broker in made:
        broker.flush_all()
        broker.close()
        broker.client.connection_pool.disconnect()


class Held:
    """An actor that says whose run it is, and waits until it may end."""

    def __init__(self, broker: RedisBroker, queue: str = "default") -> None:
        self.may_end = threading.Event()
        self.runs: list[tuple[str, str | None]] = []
        self.actor = dramatiq.actor(broker=broker, actor_name=f"hold_{queue}", queue_name=queue, max_retries=0)(self._hold)

    def _hold(self) -> None:
        job = current_job()
        assert job is not None
        self.runs.append((job.instance_id, job.queue))
        self.may_end.wait(60)


async def stop(worker: Worker) -> None:
    await anyio.to_thread.run_sync(worker.stop)


def start(broker: RedisBroker, **options: Any) -> Worker:
    worker = Worker(broker, worker_threads=2, worker_timeout=50, **options)
    worker.start()
    return worker


async def test_workers_of_two_brokers_are_two_instances(make_broker: MakeBroker, namespace: str, redis_url: str, no_leaks: None):
    tracker = Tracker(namespace=namespace, **KNOWN)
    brokers = [make_broker(), make_broker()]
    for broker in brokers:
        broker.add_middleware(TrackerMiddleware(tracker))
    held = [Held(broker) for broker in brokers]
    workers = [start(broker) for broker in brokers]
    for one in held:
        one.actor.send()
    await wait_until(lambda: all(one.runs for one in held), timeout=30, description="both messages run")
    ids = [one.runs[0][0] for one in held]
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:

        async def both_are_in_flight() -> bool:
            return sorted(job.instance_id for job in await observer.jobs()) == sorted(ids)

        await wait_until(both_are_in_flight, timeout=30, description="each is in flight on its own instance")
        assert len(set(ids)) == 2
        assert {item.instance_id for item in await observer.instances()} == set(ids)
        for number, (one, worker) in enumerate(zip(held, workers, strict=True)):
            one.may_end.set()
            await stop(worker)
            assert [item.instance_id for item in await observer.instances()] == ids[number + 1 :]
        assert tracker.instance_id is None
        assert ((await observer.stats()).started, (await observer.stats()).succeeded) == (2, 2)
    await tracker.aclose()


async def test_two_workers_of_one_broker_are_two_instances_of_one_process(
    make_broker: MakeBroker, namespace: str, redis_url: str, no_leaks: None
):
    tracker = Tracker(namespace=namespace, **KNOWN)
    broker = make_broker()
    broker.add_middleware(TrackerMiddleware(tracker))
    held = {name: Held(broker, queue=name) for name in ("one", "two")}
    workers = {name: start(broker, queues={name}) for name in held}
    for one in held.values():
        one.actor.send()
    await wait_until(lambda: all(one.runs for one in held.values()), timeout=30, description="both messages run")
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as observer:
        assert {item.instance_id: item.queue for item in await observer.instances()} == dict(one.runs[0] for one in held.values())
        stored = await observer._queries().stored_instances()
        assert observer.footing.registry.sharing(stored) == []  # they end together
        held["one"].may_end.set()
        await stop(workers["one"])
        assert [item.queue for item in await observer.instances()] == ["two"]
        assert tracker.instance_id == held["two"].runs[0][0]
        held["two"].may_end.set()
        await stop(workers["two"])
        assert await observer.instances() == []
        assert ((await observer.stats()).started, (await observer.stats()).succeeded) == (2, 2)
    await tracker.aclose()


TWO_WORKERS = """
import os, signal, sys, threading
import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker
from async_tracker import Tracker
from async_tracker.integrations.dramatiq import TrackerMiddleware

url, namespace = sys.argv[1:]
broker = RedisBroker(url=url, namespace=f"{namespace}-0")
broker.add_middleware(TrackerMiddleware(Tracker(namespace=namespace, heartbeat_interval=0.5, hook_timeout=30.0)))
begun = threading.Barrier(3)

def hold():
    begun.wait(60)
    threading.Event().wait()

for name in ("one", "two"):
    actor = dramatiq.actor(broker=broker, actor_name=f"hold_{name}", queue_name=name)(hold)
    Worker(broker, queues={name}, worker_threads=1, worker_timeout=50).start()
    actor.send()
begun.wait(60)
print("both run", flush=True)
signal.pause()
"""


async def test_what_two_workers_of_one_process_held_is_recovered_as_what_had_begun(
    make_broker: MakeBroker, namespace: str, redis_url: str, no_leaks: None
):
    broker = make_broker()
    process = subprocess.Popen([sys.executable, "-c", TWO_WORKERS, redis_url, namespace], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        line = await anyio.to_thread.run_sync(process.stdout.readline)
        assert line == b"both run\n"
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}, dramatiq_redis=redis_url) as observer:

        async def is_recovered() -> bool:
            await observer.recover()
            return not await observer.instances()

        await wait_until(is_recovered, timeout=60, description="both instances are buried")
        assert (await observer.stats()).recovered == 2  # none of them was taken for one that was merely fetched
    assert [broker.client.llen(f"{broker.namespace}:{name}") for name in ("one", "two")] == [1, 1]


class TooLong(TimeLimitExceeded):
    pass


class Going(Shutdown):
    pass


class Aborted(Interrupt):
    pass


class Later(Retry):
    pass


@pytest.mark.parametrize(
    ("error", "is_retried", "told"),
    [
        (TooLong(), True, "timed_out"),
        (Going(), True, "cancelled"),
        (Aborted(), False, "aborted"),
        (Later("later", delay=5), True, "retried"),
        (Later("later", delay=5), False, "failed"),
        (KeyboardInterrupt(), True, "retried"),
        (BaseExceptionGroup("both", [Aborted()]), False, "failed"),
    ],
)
async def test_what_an_actor_raises_is_what_dramatiq_takes_it_for_subclasses_included(error: BaseException, is_retried: bool, told: str):
    assert outcome(Ending(is_processed=True, error=error, is_retried=is_retried, is_dead=not is_retried)) == told
