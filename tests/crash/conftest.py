"""``fleet``: workers on the database of the run's server. ``make_fleet``: the same on another one."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.crash.fleet import Fleet, open_fleet
from tests.harness.ledger import Ledger
from tests.harness.workers import Workers

MakeFleet = Callable[..., Awaitable[Fleet]]


@pytest.fixture
async def make_fleet(workers: Workers, ledger: Ledger, namespace: str) -> AsyncIterator[MakeFleet]:
    async with AsyncExitStack() as stack:

        async def make(redis_url: str, **options: Any) -> Fleet:
            fleet = await open_fleet(workers, ledger, redis_url, namespace, **options)
            stack.push_async_callback(fleet.aclose)
            return fleet

        yield make


@pytest.fixture
async def fleet(make_fleet: MakeFleet, redis_url: str) -> Fleet:
    return await make_fleet(redis_url)
