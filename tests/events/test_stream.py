"""The stream of events: the newest, those after an id or a moment, and those that come; on a real server, by either protocol."""

import asyncio
from datetime import UTC, datetime

import pytest
import redis.asyncio

from async_tracker import Tracker
from async_tracker.errors import ConfigError, StorageError
from async_tracker.events.encoding import encode_event
from async_tracker.events.stream import EventStream
from async_tracker.namespace import Namespace
from async_tracker.store.commands import Store


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
async def client(request, redis_url):
    async with redis.asyncio.Redis.from_url(redis_url, protocol=request.param) as client:
        yield client


@pytest.fixture
def stream(client, namespace):
    return EventStream(Namespace(client, namespace))


async def write(redis_client, namespace, *event_ids: str) -> None:
    for event_id in event_ids:
        await redis_client.xadd(f"{namespace}:events", {"event": encode_event("stalled", instance_id=event_id)}, id=event_id)


async def take(events, count: int) -> list[str]:
    async with asyncio.timeout(10):
        return [(await anext(events)).event_id for _ in range(count)]


async def test_of_an_empty_stream_there_is_no_newest_event(stream):
    assert await stream.newest() == []


async def test_the_newest_are_given_with_the_oldest_of_them_first(stream, redis_client, namespace):
    await write(redis_client, namespace, "1000-0", "2000-0", "2000-1")
    assert [event.event_id for event in await stream.newest(2)] == ["2000-0", "2000-1"]
    assert [event.instance_id for event in await stream.newest()] == ["1000-0", "2000-0", "2000-1"]


async def test_after_an_id_comes_what_is_later_and_of_a_moment_its_own_events_too(stream, redis_client, namespace):
    await write(redis_client, namespace, "1000-0", "2000-0", "2000-1", "3000-0")
    assert await take(stream.follow("2000-0"), 2) == ["2000-1", "3000-0"]
    assert await take(stream.follow(datetime.fromtimestamp(2, UTC)), 3) == ["2000-0", "2000-1", "3000-0"]


async def test_from_now_on_comes_what_is_written_later_however_long_nothing_is(client, stream, redis_client, namespace):
    await client.ping()
    client.connection_pool.connection_kwargs["socket_timeout"] = 0.5  # of the connection on which nothing comes
    await write(redis_client, namespace, "1000-0")
    events = stream.follow()
    waiting = asyncio.ensure_future(anext(events))
    done, _ = await asyncio.wait({waiting}, timeout=1.2)  # longer than the client gives its socket
    assert not done
    await write(redis_client, namespace, "2000-0")
    async with asyncio.timeout(10):
        assert (await waiting).event_id == "2000-0"


async def test_an_event_that_another_version_wrote_is_left_out(stream, redis_client, namespace):
    await write(redis_client, namespace, "1000-0")
    await redis_client.xadd(f"{namespace}:events", {"event": '{"schema":99}'}, id="2000-0")
    await redis_client.xadd(f"{namespace}:events", {"another": "field"}, id="2000-1")
    await write(redis_client, namespace, "3000-0")
    assert [event.event_id for event in await stream.newest()] == ["1000-0", "3000-0"]
    assert await take(stream.follow("0-0"), 2) == ["1000-0", "3000-0"]


async def test_a_key_of_another_type_is_a_refusal(stream, redis_client, namespace):
    await redis_client.set(f"{namespace}:events", "not ours")
    with pytest.raises(StorageError):
        await stream.newest()
    with pytest.raises(StorageError):
        await anext(stream.follow())


async def test_events_that_are_gone_before_they_were_given_are_told_as_a_gap(stream, redis_client, namespace):
    ids = [f"{number}-0" for number in range(1_000, 1_300)]
    await write(redis_client, namespace, *ids)
    events = stream.follow("1000-0")
    assert await take(events, 100) == ids[1:101]  # what follows in order is no gap
    await redis_client.xtrim(f"{namespace}:events", minid="1150-0", approximate=False)
    async with asyncio.timeout(10):
        gap = await anext(events)
    assert (gap.type, gap.event_id, gap.details) == ("gap", "1100-0", {"before": "1150-0"})
    assert await take(events, 150) == ids[150:]


async def test_after_a_moment_and_from_the_beginning_there_is_no_gap(stream, redis_client, namespace):
    ids = [f"{number}-0" for number in range(1_000, 1_120)]
    await write(redis_client, namespace, *ids)
    for since in ("0-0", datetime.fromtimestamp(0.5, UTC)):
        assert await take(stream.follow(since), 120) == ids
    await redis_client.xtrim(f"{namespace}:events", minid="1010-0", approximate=False)
    async with asyncio.timeout(10):
        assert (await anext(stream.follow("1005-0"))).type == "gap"


async def test_a_page_ends_with_its_limit_or_with_the_last_event_that_is_kept(stream, redis_client, namespace):
    ids = [f"{number}-0" for number in range(1_000, 1_250)]
    assert [event async for event in stream.page(None, limit=5)] == []
    await write(redis_client, namespace, *ids)
    assert await stream.count() == 250
    assert [event.event_id async for event in stream.page(None, limit=2)] == ids[:2]
    assert [event.event_id async for event in stream.page("1001-0", limit=201)] == ids[2:203]
    assert [event.event_id async for event in stream.page("1100-0", limit=10_000)] == ids[101:]
    assert [event.event_id async for event in stream.page(datetime.fromtimestamp(1.249, UTC), limit=5)] == ids[-1:]
    await redis_client.xtrim(f"{namespace}:events", minid="1010-0", approximate=False)
    found = [(event.type, event.event_id) async for event in stream.page("1005-0", limit=2)]
    assert found == [("gap", "1005-0"), ("stalled", "1010-0")]


async def test_a_tracker_pages_through_its_events_counts_them_and_refuses_what_is_no_page(client, redis_client, namespace):
    await write(redis_client, namespace, "1000-0", "2000-0", "2000-1")
    tracker = Tracker(namespace=namespace, redis=client)
    assert [event.event_id async for event in tracker.events(limit=2)] == ["1000-0", "2000-0"]
    assert [event.event_id async for event in tracker.events("2000-0", limit=2)] == ["2000-1"]
    assert await tracker.events(count=True) == 3
    with pytest.raises(ConfigError, match="limit"):
        tracker.events(limit=0)
    with pytest.raises(ConfigError, match="leave out limit and since"):
        tracker.events("2000-0", count=True)  # type: ignore[call-overload]


async def test_events_that_had_their_time_before_they_were_given_are_told_as_a_gap_however_few_there_are(stream, redis_client, namespace):
    seconds, _ = await redis_client.time()
    old, lost, recent = (f"{(seconds - days * 86_400) * 1000}-0" for days in (32, 31, 29))
    await write(redis_client, namespace, old, lost, recent)
    assert [event.event_id async for event in stream.page(old, limit=5)] == [lost, recent]
    await Store(Namespace(redis_client, namespace)).list_queues([], at_ms=seconds * 1000)
    assert [(event.type, event.event_id) async for event in stream.page(old, limit=5)] == [("gap", old), ("stalled", recent)]
    async with asyncio.timeout(10):
        assert (await anext(stream.follow(old))).type == "gap"
    never_written = f"{(seconds - 30 * 86_400 + 60) * 1000}-0"
    assert [event.event_id async for event in stream.page(never_written, limit=5)] == [recent], "no older event is kept, and none is due"


async def test_the_stream_keeps_the_events_of_thirty_days_and_of_very_many_the_newest(stream, redis_client, namespace, monkeypatch):
    monkeypatch.setattr("async_tracker.store.commands.EVENTS_KEPT", 300)
    store = Store(Namespace(redis_client, namespace))
    seconds, _ = await redis_client.time()
    ids = [f"{(seconds - days * 86_400) * 1000}-0" for days in range(40, 0, -1)]
    await write(redis_client, namespace, *ids)
    await store.list_queues([], at_ms=seconds * 1000)
    assert [event.event_id for event in await stream.newest()] == ids[10:]
    for _ in range(700):
        await store.publish(encode_event("stalled"))
    assert 300 <= await stream.count() < 500
    assert (await stream.newest(1))[0].event_id > ids[-1]


async def test_a_stream_that_a_sweep_may_not_trim_costs_it_nothing_else(redis_client, namespace):
    store = Store(Namespace(redis_client, namespace))
    await redis_client.set(f"{namespace}:events", "not ours")
    assert await store.list_queues([], at_ms=60_000) == 0
    assert await redis_client.zcard(f"{namespace}:queues") == 1
