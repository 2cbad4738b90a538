"""What the tests of orders stand on: arq workers inside the test's loop, and trackers that beat often."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from arq.connections import ArqRedis

from async_tracker import Tracker
from tests.control.dramatiq_here import MakeBroker, brokers
from tests.harness.settings import KNOWN
from tests.integrations.arq.conftest import StartWorker, pool, queue
from tests.integrations.arq.running import RunningWorker, open_pool, start_worker
from tests.integrations.dramatiq.conftest import masters

_FINISH_SECONDS = 5.0

__all__ = ["make_broker", "masters", "observer", "own_tracker", "pool", "queue", "run_worker"]


@pytest.fixture
async def run_worker(redis_url: str, queue: str) -> AsyncIterator[StartWorker]:
    """``await run_worker(settings, **worker_arguments)``; with ``url=`` on another Redis. Its jobs finish what they are at."""
    started: list[RunningWorker] = []

    async def run(settings: Any, *, url: str | None = None, pool: ArqRedis | None = None, **overrides: Any) -> RunningWorker:
        started.append(start_worker(settings, pool or await open_pool(url or redis_url, queue=queue), **overrides))
        return started[-1]

    yield run
    for worker in started:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FINISH_SECONDS):
                await worker.idle()
        await worker.end()


@pytest.fixture
async def own_tracker(namespace: str) -> AsyncIterator[Tracker]:
    """The tracker of a worker, on the worker's own pool."""
    async with Tracker(namespace=namespace, heartbeat_interval=0.5, heartbeat_ttl=15.0, **KNOWN) as tracker:
        yield tracker


@pytest.fixture
async def observer(redis_url: str, namespace: str) -> AsyncIterator[Tracker]:
    """The tracker of the person who gives orders."""
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker:
        yield tracker


@pytest.fixture
def make_broker(redis_url: str, namespace: str) -> Iterator[MakeBroker]:
    """Brokers of dramatiq in this process."""
    with brokers(redis_url, namespace) as make:
        yield make
