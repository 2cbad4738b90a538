"""The page in bad weather: a namespace that does not exist, a Redis that is slow, or that failed over, and more events than one reading."""

import time
from contextlib import AsyncExitStack

from async_tracker import Tracker
from async_tracker.events.encoding import encode_event
from async_tracker.web import past
from async_tracker.web.pictures import Pictures
from async_tracker.web.readings import Readings
from async_tracker.web.screens import SCREENS, topic
from tests.harness.wait import wait_until
from tests.instance.test_change_of_server import Pair, pair
from tests.web.test_api import with_jobs
from tests.web.test_live import following

__all__ = ["pair"]


async def test_a_namespace_that_does_not_exist_shows_nothing_and_is_not_made_by_looking(tracker, redis_client, namespace):
    pictures = Pictures(Readings(tracker))
    overview = (await pictures.make(topic("overview"))).facts
    assert (overview["attention"], overview["states"], overview["orphans"]) == ([], {}, 0)
    for name in SCREENS:
        if name != "doctor":
            picture = await pictures.make(topic(name))
            assert (picture.facts["total"], dict(picture.rows)) == (0, {}), name
    for name in ("instance?id=none", "job?id=none", "function?function=none"):
        await pictures.make(topic(name))
    head = await pictures.head()
    assert (head["instances"], head["jobs"], head["orphans"], head["quarantined"], head["away"]) == (0, 0, 0, 0, None)
    assert await redis_client.keys(f"{namespace}:*") == []


async def test_a_slow_redis_is_asked_less_often_and_is_not_away(serve, wire, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        wire.delay(to_client=0.5)
        program = await stack.enter_async_context(serve(url=wire.url).program())
        heard = await stack.enter_async_context(following(program, "instances", "jobs"))
        await wait_until(lambda: heard.rows("jobs") and heard.rows("instances"), timeout=60.0, description="all is told")
        wire.forget_commands()
        began, events = time.monotonic(), heard.events
        await wait_until(lambda: heard.events > events + 4, timeout=60.0, description="the page is told that it is there")
        assert sum(wire.command_counts().values()) <= 10 + (time.monotonic() - began)
        assert heard.pictures["head"]["facts"]["away"] is None
        assert heard.pictures["jobs"]["error"] is None


async def test_after_a_failover_the_page_goes_on_by_itself(serve, pair: Pair, namespace: str):
    async with AsyncExitStack() as stack:
        tracker = await stack.enter_async_context(Tracker(namespace=namespace, redis_options={"url": pair.service.url}))
        instance_id = await with_jobs(stack, tracker, "before")
        program = await stack.enter_async_context(serve(url=pair.service.url).program())
        heard = await stack.enter_async_context(following(program, "instances", "jobs"))
        await wait_until(lambda: len(heard.rows("jobs")) == 1, timeout=30.0, description="the job is told")
        await pair.caught_up()
        await pair.part()
        pair.fail_over()
        await stack.enter_async_context(tracker.track("after", function="send_email"))
        both = {"before", "after"}
        await wait_until(lambda: {row["id"] for row in heard.rows("jobs")} == both, timeout=60.0, description="both jobs are told")
        await wait_until(
            lambda: [(row["id"], row["state"]) for row in heard.rows("instances")] == [(instance_id, "alive")],
            timeout=60.0,
            description="the instance is back",
        )
        await wait_until(lambda: heard.pictures["head"]["facts"]["away"] is None, timeout=30.0, description="Redis is there")
        assert heard.pictures["jobs"]["error"] is None


async def test_all_events_that_are_kept_are_read_in_parts(tracker, redis_client, namespace, monkeypatch):
    monkeypatch.setattr(past, "_PART", 8)
    key = f"{namespace}:events"
    for number in range(100):
        await redis_client.xadd(key, {"event": encode_event("recovered", job_id=str(number))}, id=f"1700000000000-{number}")
    found = past.Past(tracker)
    counts = [len(await found.read()) for _ in range(4)]
    assert counts == [40, 80, 100, 100]
    await redis_client.xadd(key, {"event": encode_event("recovered", job_id="new")}, id="1700000000001-0")
    assert [event.job_id for event in await found.read()] == ["new", *(str(number) for number in reversed(range(100)))]
    await redis_client.delete(key)
    assert await found.read() == ()
