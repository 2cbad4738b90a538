"""dramatiq workers in the test's own process."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio.to_thread
from dramatiq.brokers.redis import RedisBroker
from dramatiq.worker import Worker

from async_tracker import Tracker
from tests.harness.wait import wait_until

HEARTBEAT_TIMEOUT = 2.5
"""Seconds after which dramatiq takes a broker for dead that has sent nothing."""

MakeBroker = Callable[..., RedisBroker]


@contextmanager
def brokers(redis_url: str, namespace: str) -> Iterator[MakeBroker]:
    """Give what makes brokers that look for dead ones with each command; closed at the end."""
    made: list[RedisBroker] = []

    def make(url: str = redis_url) -> RedisBroker:
        timeout_ms = int(HEARTBEAT_TIMEOUT * 1000)
        made.append(RedisBroker(url=url, namespace=namespace, heartbeat_timeout=timeout_ms, maintenance_chance=1_000_000))
        return made[-1]

    yield make
    for broker in made:
        broker.close()
        broker.client.connection_pool.disconnect()


async def start(broker: RedisBroker, *, threads: int = 2, **options: Any) -> Worker:
    """Start a worker."""
    worker = Worker(broker, worker_threads=threads, worker_timeout=50, **options)
    await anyio.to_thread.run_sync(worker.start)
    return worker


async def the_instance(tracker: Tracker, state: str = "alive") -> str:
    """Wait for an instance in this state, and give its id."""

    async def found() -> str | None:
        return next((item.instance_id for item in await tracker.instances() if item.state == state), None)

    return str(await wait_until(found, timeout=30.0, description=f"an instance is {state}"))
