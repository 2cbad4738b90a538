"""What everybody is told of a death: callbacks in the process that acts, and a stream that can be replayed."""

import asyncio
from datetime import UTC, datetime

from async_tracker import Event
from tests.crash.fleet import QUICK, Fleet
from tests.harness.wait import wait_until

NO_SWEEP = {**QUICK, "heartbeat_ttl": 15.0, "recover": False}
"""So that nobody takes it for stalled on the way to its death, however late it is looked for."""


async def replayed(fleet: Fleet, since: str | datetime, *, until: str) -> list[Event]:
    """Replay the stream up to the first event of that type."""
    found: list[Event] = []
    async with asyncio.timeout(30):
        async for event in fleet.tracker.events(since=since):
            found.append(event)
            if event.type == until:
                break
    return found


async def test_a_death_is_told_once_to_the_callbacks_of_who_acts_and_to_everybody_who_reads_the_stream(fleet: Fleet):
    """Allowed: lost 0, doubled 0."""
    told: list[Event] = []
    heard: list[str] = []

    @fleet.tracker.on("instance_dead", "orphaned", "recovered")
    def listen(event: Event) -> None:
        told.append(event)

    @fleet.tracker.on("recovered")
    async def listen_too(event: Event) -> None:
        heard.append(event.type)
        raise RuntimeError("a listener's defect is its own")

    began = datetime.now(tz=UTC)
    (worker,) = await fleet.start_ready(tracker=NO_SWEEP)
    instance = await fleet.registered(worker)
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    await fleet.in_flight(job_id)
    worker.kill()

    async def recovered() -> bool:
        return bool(await fleet.tracker.recover())

    await wait_until(recovered, timeout=30, description="the orphan is recovered by hand", poll_interval=0.2)
    assert [event.type for event in told] == ["instance_dead", "orphaned", "recovered"]
    await wait_until(lambda: heard, description="the coroutine was told as well")

    stream = await replayed(fleet, "0-0", until="recovered")
    assert [event.type for event in stream] == ["instance_dead", "orphaned", "recovered"]
    assert {event.instance_id for event in stream} == {instance.instance_id}
    assert [event.job_id for event in stream] == [None, job_id, job_id]
    assert [event.event_id for event in await replayed(fleet, "0-0", until="recovered")] == [event.event_id for event in stream]
    assert [event.event_id for event in await replayed(fleet, began, until="recovered")] == [event.event_id for event in stream]
    assert [event.type for event in await replayed(fleet, stream[0].event_id, until="recovered")] == ["orphaned", "recovered"]
    await fleet.start_ready(tracker=QUICK)
    await fleet.succeeded(job_id)
    await fleet.close()


async def test_a_reader_that_follows_hears_of_a_stall_and_of_a_death(fleet: Fleet):
    """Allowed: lost 0, doubled 0."""
    heard: list[str] = []

    async def follow() -> None:
        async for event in fleet.tracker.events(since="0-0"):
            heard.append(event.type)

    follower = asyncio.create_task(follow())
    (stopped,) = await fleet.start_ready(tracker=QUICK)
    job_id = await fleet.enqueue("interrupted")
    await fleet.running(job_id)
    await fleet.start_ready(tracker=QUICK)
    stopped.suspend()
    await wait_until(lambda: "stalled" in heard, timeout=30, description="the stall is told")
    stopped.kill()
    await wait_until(lambda: "recovered" in heard, timeout=30, description="the recovery is told")
    assert heard.index("stalled") < heard.index("instance_dead") < heard.index("orphaned") < heard.index("recovered")
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    await fleet.succeeded(job_id)
    await fleet.close()
