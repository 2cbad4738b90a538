"""What a SIGKILL takes of the counters: what was counted since the last heartbeat that got through, and nothing before it."""

from tests.crash.fleet import SWIFT, Fleet
from tests.harness.wait import wait_until

SLOW_BEAT = {**SWIFT, "heartbeat_interval": 2.0, "heartbeat_ttl": 10.0}
CARRIED, NOT_CARRIED = 20, 10


async def test_a_kill_takes_no_count_that_a_heartbeat_has_carried_and_counts_nothing_twice(fleet: Fleet):
    """Allowed: lost 0, doubled 0."""
    (worker,) = await fleet.start_ready(tracker=SLOW_BEAT)
    await fleet.succeeded(*await fleet.enqueue_many(CARRIED, "hold", 0.0))

    async def are_carried() -> bool:
        return (await fleet.tracker.stats()).succeeded == CARRIED

    await wait_until(are_carried, timeout=30, description="a heartbeat has carried the counts")
    await fleet.succeeded(*await fleet.enqueue_many(NOT_CARRIED, "hold", 0.0))
    worker.kill()
    await fleet.start_ready(tracker=SWIFT)

    async def is_buried() -> bool:
        return worker.pid not in [instance.pid for instance in await fleet.tracker.instances()]

    await wait_until(is_buried, timeout=30, description="the dead instance is settled")
    stats = await fleet.tracker.stats()
    assert CARRIED <= stats.succeeded <= CARRIED + NOT_CARRIED
    assert CARRIED <= stats.started <= CARRIED + NOT_CARRIED
    history = await fleet.tracker.stats(window=600)
    assert CARRIED <= history.succeeded <= CARRIED + NOT_CARRIED
    assert CARRIED <= history.started <= CARRIED + NOT_CARRIED
    await fleet.close()
