"""Trackers of the test's own namespace."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from async_tracker import Tracker


@pytest.fixture
async def make_tracker(redis_url: str, namespace: str) -> AsyncIterator[Callable[..., Tracker]]:
    """``make_tracker(**arguments)``: in the test's namespace and on its server unless told otherwise; closed with the test."""
    made: list[Tracker] = []

    def make(**arguments: Any) -> Tracker:
        chosen: dict[str, Any] = {"namespace": namespace, **arguments}
        if not {"redis", "redis_options"} & set(arguments):
            chosen["redis_options"] = {"url": redis_url}
        made.append(Tracker(**chosen))
        return made[-1]

    yield make
    for tracker in made:
        await tracker.aclose()


@pytest.fixture
def tracker(make_tracker: Callable[..., Tracker]) -> Tracker:
    return make_tracker()
