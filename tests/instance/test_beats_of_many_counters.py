"""A beat carries so many counters that the server is not held up by them; what it has no room for follows, and counts once."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from async_tracker import StorageUnavailable, Tracker
from async_tracker.store.commands import Store
from async_tracker.store.counters import COUNTERS_IN_A_BATCH
from async_tracker.store.writes import Beat
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until

FUNCTIONS = 300


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Beat]:
    """The beats that reach the real server."""
    found: list[Beat] = []
    beat = Store.beat

    async def noted(self: Store, instance_id: str, each: Beat) -> Any:
        found.append(each)
        return await beat(self, instance_id, each)

    monkeypatch.setattr(Store, "beat", noted)
    return found


@pytest.fixture
def instance(redis_url: str, namespace: str) -> Callable[..., Tracker]:
    return lambda **settings: Tracker(namespace=namespace, redis_options={"url": redis_url}, **{**QUIET, **settings})


async def run_each(tracker: Tracker, times: int = 1) -> None:
    for _ in range(times):
        for number in range(FUNCTIONS):
            async with tracker.track(str(number), function=f"function {number}", queue="mail"):
                pass


async def counted(tracker: Tracker) -> Counter[str]:
    found = Counter[str]()
    for row in (await tracker.stats()).functions:
        found.update({"functions": 1, "started": row.started, "succeeded": row.succeeded})
    return found


async def test_no_beat_carries_more_counters_than_the_server_adds_at_a_stretch_and_all_arrive(
    sent: list[Beat], instance: Callable[..., Tracker]
):
    async with instance(heartbeat_interval=0.1) as tracker, tracker.register(queue="mail"):
        await run_each(tracker, times=3)
        expected = {"functions": FUNCTIONS, "started": 3 * FUNCTIONS, "succeeded": 3 * FUNCTIONS}
        await wait_until(lambda: _has(tracker, expected), description="all counters have arrived")
    assert max(len(beat.totals.grown) for beat in sent if beat.totals is not None) == COUNTERS_IN_A_BATCH
    assert [beat.sequence for beat in sent] == sorted({beat.sequence for beat in sent}), "each has a number of its own"
    heartbeats = [beat for beat in sent if beat.fields]
    assert len(heartbeats) < len(sent), "the others carry counters and nothing else"


async def _has(tracker: Tracker, expected: dict[str, int]) -> bool:
    return await counted(tracker) == expected


async def test_parts_that_do_not_arrive_or_whose_answer_is_lost_are_sent_again_and_count_once(
    instance: Callable[..., Tracker], monkeypatch: pytest.MonkeyPatch
):
    beat, number = Store.beat, 0

    async def lossy(self: Store, instance_id: str, each: Beat) -> Any:
        nonlocal number
        number += 1
        if number % 4 == 2:
            raise StorageUnavailable("the request was lost")
        reply = await beat(self, instance_id, each)
        if number % 4 == 0:
            raise StorageUnavailable("the reply was lost")
        return reply

    monkeypatch.setattr(Store, "beat", lossy)
    async with instance(heartbeat_interval=0.02) as tracker, tracker.register(queue="mail"):
        await run_each(tracker, times=2)
        expected = {"functions": FUNCTIONS, "started": 2 * FUNCTIONS, "succeeded": 2 * FUNCTIONS}
        await wait_until(lambda: _has(tracker, expected), timeout=30, description="all counters have arrived")
        lost = number
    assert lost > 8


async def test_an_instance_that_leaves_leaves_all_its_counters(instance: Callable[..., Tracker]):
    async with instance(heartbeat_interval=60, heartbeat_ttl=200, silence_limit=200) as tracker:
        async with tracker.register(queue="mail"):
            await run_each(tracker)
        assert await counted(tracker) == {"functions": FUNCTIONS, "started": FUNCTIONS, "succeeded": FUNCTIONS}
