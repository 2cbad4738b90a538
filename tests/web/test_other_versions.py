"""What another version of this package wrote is shown as such on the page: it breaks nothing, and is not passed over."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from playwright.async_api import expect

from async_tracker.web.past import Past
from async_tracker.web.pictures import Pictures
from async_tracker.web.readings import Readings
from async_tracker.web.screens import topic
from tests.harness.settings import QUIET
from tests.harness.wait import wait_until
from tests.web.browser import Eyes, is_live
from tests.web.conftest import lets_read
from tests.web.test_api import with_jobs


@asynccontextmanager
async def newer_records(make_tracker: Any, redis_client: Any, namespace: str) -> AsyncIterator[str]:
    """Have of each kind of record one of this version and one of a newer; gives the id of the instance that is newer."""
    async with AsyncExitStack() as stack:
        await with_jobs(stack, make_tracker(**QUIET), "ours", "theirs")
        other = make_tracker(**QUIET)
        newer = await with_jobs(stack, other, "on the newer one")
        await redis_client.hset(f"{namespace}:instance:{newer}", mapping={"schema": "99", "limits": "{}", "pid": "none"})
        await redis_client.set(f"{namespace}:job:theirs", '{"schema":99,"job":["theirs"]}')
        await redis_client.xadd(f"{namespace}:events", {"event": '{"schema":2,"type":"moved","job_id":"ours","to":{"a":1}}'})
        await redis_client.xadd(f"{namespace}:events", {"event": "\x00 no event at all"})
        await redis_client.zadd(f"{namespace}:quarantine", {"pill": 1, "odd": 2})
        pill = {"schema": "2", "job_id": "pill", "library": "arq", "deaths": "many", "quarantined_at_ms": "9" * 30, "unheard": "of"}
        await redis_client.hset(f"{namespace}:quarantined:pill", mapping=pill)
        await redis_client.rpush(f"{namespace}:quarantined:odd", "a list")
        yield newer


async def test_each_record_of_a_newer_version_is_told_of_on_its_screen(make_tracker, redis_client, namespace):
    async with newer_records(make_tracker, redis_client, namespace) as newer:
        pictures = Pictures(Readings(make_tracker(**QUIET)))

        async def facts(name: str) -> Any:
            return (await pictures.make(topic(name))).facts

        async def rows(name: str) -> list[Any]:
            return list((await pictures.make(topic(name))).rows.values())

        assert (await facts("instances"))["corrupt"] == [f"instance:{newer}"]
        assert len(await rows("instances")) == 1
        assert (await facts("jobs"))["corrupt"] == [f"instance:{newer}", "job:theirs"]
        assert {row["id"]: row["state"] for row in await rows("jobs")} == {"ours": "alive", "on the newer one": "another_version"}
        told = [item for item in (await facts("overview"))["attention"] if item["kind"] == "another_version"]
        assert told == [{"kind": "another_version", "id": f"instance:{newer}", "more": 2}]
        assert (await facts(f"instance?id={newer}"))["unread"] is True
        assert [(await facts(f"job?id={name}"))["unread"] for name in ("theirs", "ours")] == [True, False]
        assert {row["id"]: (row["deaths"], row["why"]) for row in await rows("quarantine")} == {
            "pill": (0, ""),
            "odd": (0, "its record is of another type: another program wrote it"),
        }
        events = [(row["type"], row["job"], row["details"]) for row in await rows("events") if row["type"] == "another_version"]
        assert events == [("another_version", None, {}), ("another_version", "ours", {"schema": 2, "type": "moved"})]


async def test_what_cannot_be_read_of_the_dead_and_of_their_jobs_is_named_among_the_orphans(redis_client, namespace, tracker):
    await redis_client.zadd(f"{namespace}:dead", {"gone": 1_700_000_000_000})
    await redis_client.hset(f"{namespace}:instance:gone", mapping={"schema": "99", "limits": "{}"})
    await redis_client.sadd(f"{namespace}:jobs:gone", "lost", "odd")
    await redis_client.set(f"{namespace}:job:lost", '{"schema":1,"instance":"gone","run":"r","started_at_ms":5}')
    await redis_client.set(f"{namespace}:job:odd", '{"schema":99}')
    pictures = Pictures(Readings(tracker))
    orphans = await pictures.make(topic("orphans"))
    assert [row["id"] for row in orphans.rows.values()] == ["lost"]
    assert orphans.facts["corrupt"] == ["instance:gone", "job:odd"]
    overview = await pictures.make(topic("overview"))
    assert overview.facts["orphans"] == 1
    assert [item["more"] for item in overview.facts["attention"] if item["kind"] == "another_version"] == [2]
    assert (await pictures.head())["orphans"] == 1


async def test_the_api_answers_with_what_it_can_read(make_tracker, redis_client, namespace, mount):
    async with newer_records(make_tracker, redis_client, namespace) as newer:
        client = mount(of=make_tracker(**QUIET), authorize=lets_read)
        snapshot = (await client.get("/api/v1/snapshot")).json()
        assert snapshot["corrupt"] == [f"instance:{newer}", "job:theirs"]
        for path, status in (("instances", 200), (f"instances/{newer}", 404), ("jobs/theirs", 409), ("quarantine", 200), ("events", 200)):
            assert (await client.get(f"/api/v1/{path}")).status_code == status, path
        event = (await client.get("/api/v1/events", params={"type": "another_version"})).json()["events"][-1]
        assert (event["schema"], event["job_id"]) == (2, "ours")


async def test_events_beyond_very_many_of_a_newer_version_are_found(redis_client, namespace, tracker):
    key = f"{namespace}:events"
    await redis_client.xadd(key, {"event": '{"schema":1,"type":"recovered","job_id":"old"}'}, id="1700000000000-0")
    async with redis_client.pipeline(transaction=False) as pipe:
        for number in range(1_500):
            pipe.xadd(key, {"event": '{"schema":2,"type":"moved"}'}, id=f"1700000000001-{number}")
        await pipe.execute()
    past = Past(tracker)
    await past.read()
    assert (await past.read())[-1].job_id == "old"


async def test_a_person_sees_that_records_are_of_another_version(make_tracker, redis_client, namespace, serve_here, eyes: Eyes):
    async with newer_records(make_tracker, redis_client, namespace) as newer:
        served = await serve_here()
        page = await eyes.open(served.url)
        await is_live(page)
        attention = page.locator(".attention li", has_text="another version").first
        await expect(attention).to_contain_text("2 records")
        await page.click("nav a[data-screen=instances]")
        await expect(page.locator(".table .banner")).to_contain_text(f"this version cannot read them: instance:{newer}")
        await page.click("nav a[data-screen=jobs]")
        await expect(page.locator(".table .banner")).to_contain_text("job:theirs")
        row = page.locator("tbody tr", has_text="on the newer one")
        await expect(row.locator(".state")).to_have_text("another version")
        await row.locator("td a.id").click()
        await expect(page.locator("#drawer")).to_contain_text("Its record cannot be read")
        await page.click("nav a[data-screen=quarantine]")
        await expect(page.locator("tbody tr", has_text="odd")).to_contain_text("another program wrote it")
        await page.click("nav a[data-screen=events]")
        await expect(page.locator("tbody tr", has_text="another version")).to_have_count(2)
        await wait_until(lambda: page.locator("tbody tr", has_text="schema 2 · type moved").count(), description="what can be told of it")
