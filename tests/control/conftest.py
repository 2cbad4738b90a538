"""What the tests of orders stand on: arq workers inside the test's loop, and trackers that beat often."""

from collections.abc import AsyncIterator

import pytest

from async_tracker import Tracker
from tests.integrations.arq.conftest import pool, queue, run_worker
from tests.integrations.dramatiq.conftest import masters

__all__ = ["masters", "observer", "own_tracker", "pool", "queue", "run_worker"]


@pytest.fixture
async def own_tracker(namespace: str) -> AsyncIterator[Tracker]:
    """The tracker of a worker, on the worker's own pool."""
    async with Tracker(namespace=namespace, heartbeat_interval=0.5, heartbeat_ttl=15.0) as tracker:
        yield tracker


@pytest.fixture
async def observer(redis_url: str, namespace: str) -> AsyncIterator[Tracker]:
    """The tracker of the person who gives orders."""
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker:
        yield tracker
