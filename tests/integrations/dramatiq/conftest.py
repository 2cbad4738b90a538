"""``masters``: dramatiq masters on the database of the run's server."""

from collections.abc import AsyncIterator

import pytest

from async_tracker import Tracker
from tests.harness.ledger import Ledger
from tests.harness.workers import Workers
from tests.integrations.dramatiq.masters import Masters


@pytest.fixture
async def masters(workers: Workers, ledger: Ledger, redis_url: str, namespace: str) -> AsyncIterator[Masters]:
    async with Tracker(namespace=namespace, redis_options={"url": redis_url}) as tracker:
        made = Masters(workers=workers, ledger=ledger, redis_url=redis_url, namespace=namespace, tracker=tracker)
        yield made
        made.broker.client.connection_pool.disconnect()
