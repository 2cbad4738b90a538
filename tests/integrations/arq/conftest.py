"""A tracker of the test's namespace, and workers that end with the test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from arq.connections import ArqRedis

from async_tracker import Tracker
from tests.harness.settings import KNOWN
from tests.integrations.arq.running import RunningWorker, open_pool, start_worker

StartWorker = Callable[..., Awaitable[RunningWorker]]


@pytest.fixture(autouse=True)
def nothing_is_left_behind(no_leaks: None) -> None:
    """After every test of this folder each key of its namespace has an owner or a lifetime."""


@pytest.fixture
def queue(namespace: str) -> str:
    return f"queue:{namespace}"


@pytest.fixture
async def pool(redis_url: str, queue: str) -> AsyncIterator[ArqRedis]:
    """The pool that enqueues."""
    pool = await open_pool(redis_url, queue=queue)
    yield pool
    await pool.aclose()


@pytest.fixture
async def run_worker(redis_url: str, queue: str) -> AsyncIterator[StartWorker]:
    """``await run_worker(settings, **worker_arguments)``; with ``url=`` on another Redis."""
    started: list[RunningWorker] = []

    async def run(settings: Any, *, url: str | None = None, pool: ArqRedis | None = None, **overrides: Any) -> RunningWorker:
        worker = start_worker(settings, pool or await open_pool(url or redis_url, queue=queue), **overrides)
        started.append(worker)
        return worker

    yield run
    for worker in started:
        await worker.end()


@pytest.fixture
async def make_tracker(namespace: str) -> AsyncIterator[Callable[..., Tracker]]:
    """``make_tracker(**settings)``: beats often; the limits stay generous, the machine may be slow. A worker works once Redis knows it."""
    made: list[Tracker] = []

    def make(**settings: Any) -> Tracker:
        options = {"namespace": namespace, "heartbeat_interval": 0.5, "heartbeat_ttl": 15.0, **KNOWN, **settings}
        made.append(Tracker(**options))
        return made[-1]

    yield make
    for tracker in made:
        await tracker.aclose()


@pytest.fixture
def tracker(make_tracker: Callable[..., Tracker]) -> Tracker:
    return make_tracker()


@pytest.fixture
async def observer(redis_url: str, namespace: str) -> AsyncIterator[Tracker]:
    """A tracker that only asks, as a web application does."""
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker:
        yield tracker
