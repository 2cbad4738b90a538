"""What needs attention, and what is told so that it can be read: jobs past their timeout, deploys, one number of jobs, a phone."""

import asyncio
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any

from playwright.async_api import expect

from async_tracker.queries.questions import Overdue
from async_tracker.records import Deploy, History
from async_tracker.web.document import openapi
from async_tracker.web.pictures import Pictures
from async_tracker.web.readings import Readings
from async_tracker.web.screens import topic
from async_tracker.web.trends import deploy_rows
from tests.harness.wait import wait_until
from tests.web.browser import Eyes, is_live
from tests.web.test_api import with_jobs
from tests.web.test_trends import with_runs


async def test_jobs_past_their_timeout_need_attention_the_worst_first_and_the_others_are_counted(tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, *(f"late-{number}" for number in range(5)), timeout=0.001)
        await stack.enter_async_context(tracker.track("in time", function="send_email", timeout=600.0))
        await stack.enter_async_context(tracker.track("without", function="send_email"))
        pictures = Pictures(Readings(tracker))

        async def overdue() -> list[Any]:
            facts = (await pictures.make(topic("overview"))).facts
            return [row for row in facts["attention"] if row["kind"] == "overdue"]

        rows = await wait_until(overdue, description="the jobs are looked at")
        assert [row["id"] for row in rows] == ["late-0", "late-1", "late-2", ""]
        assert rows[0]["timeout"] == 0.001
        assert rows[-1]["more"] == 2


async def test_the_overview_does_not_wait_for_all_jobs_and_says_that_it_has_not_seen_them(tracker, monkeypatch):
    readings = Readings(tracker)
    pictures, all_jobs = Pictures(readings), asyncio.Event()

    async def slow() -> Overdue:
        await all_jobs.wait()
        return Overdue(total=0, jobs=[], unread=[])

    monkeypatch.setitem(readings._ask, "overdue", slow)
    assert (await pictures.make(topic("overview"))).facts["jobs_seen"] is False
    all_jobs.set()

    async def seen() -> bool:
        return bool((await pictures.make(topic("overview"))).facts["jobs_seen"])

    await wait_until(seen, description="they are seen")
    await readings.aclose()


async def test_an_opened_instance_tells_one_number_of_its_jobs(tracker):
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "one", "two")
        facts = (await Pictures(Readings(tracker)).make(topic(f"instance?id={instance_id}"))).facts
        assert (facts["one"]["busy"], facts["total"]) == (2, 2)


def test_a_deploy_is_told_with_its_moment_and_the_description_of_the_api_names_it():
    at = datetime(2026, 5, 1, 12, tzinfo=UTC)
    found = History(function=None, queue=None, step=60.0, points=(), deploys=(Deploy(version="2026-05-01.1", at=at),))
    assert deploy_rows(found) == [[1_777_636_800_000, "2026-05-01.1"]]
    schemas = openapi()["components"]["schemas"]
    assert schemas["History"]["properties"]["deploys"]["items"]["$ref"] == "#/components/schemas/Deploy"
    assert "Deploy" in schemas


async def test_a_person_sees_late_jobs_and_deploys_and_reads_events_on_a_phone(serve_here, eyes: Eyes, make_tracker):
    tracker = make_tracker(heartbeat_interval=0.5, version="2026-05-01.1")
    async with AsyncExitStack() as stack:
        await with_runs(stack, tracker)
        await stack.enter_async_context(tracker.track("late", function="send_email", queue="mail", timeout=0.001))
        served = await serve_here()
        page = await eyes.open(served.url)
        await is_live(page)
        await expect(page.locator(".attention li", has_text="late").locator(".state")).to_have_text("overdue")
        await expect(page.locator(".chart-panel .flag")).to_contain_text("2026-05-01.1")
        told = page.locator(".chart-panel .told")
        for _ in range(3):  # a minute may have begun since
            await page.locator(".chart-panel .frame").press("ArrowLeft" if "deployed" not in (await told.text_content() or "") else "Shift")
        await expect(told).to_contain_text("deployed 2026-05-01.1")
        await page.set_viewport_size({"width": 390, "height": 844})
        await page.goto(f"{served.base}events")
        details = page.locator("tbody tr", has_text="deployed").locator(".why")
        await expect(details).to_contain_text("2026-05-01.1")
        box = await details.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        roles = await page.locator(".stacks").evaluate("(table) => [...table.querySelectorAll('tbody > *')].map((row) => row.role)")
        assert set(roles) == {"row"}
