"""Orders to workers from the page: who may give them, what comes of them, and what a person sees."""

from contextlib import AsyncExitStack

from playwright.async_api import expect

from tests.crash.fleet import QUICK, Fleet
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.web.browser import Eyes, is_live
from tests.web.conftest import lets_act, lets_read
from tests.web.test_api import with_jobs

HERE = {"sec-fetch-site": "same-origin"}


async def test_a_worker_is_made_quiet_and_takes_jobs_again_and_the_event_names_who(mount, tracker):
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "one")
        client = mount(authorize=lets_act, identify=lambda request: "ann")
        answer = await client.post(f"/api/v1/instances/{instance_id}/quiet", headers=HERE)
        assert (answer.status_code, answer.json()["answer"]["outcome"]) == (200, "done")
        assert tracker.is_quiet
        assert (await client.get("/api/v1/instances")).json()["instances"][0]["state"] == "quiet"
        answer = await client.post(f"/api/v1/instances/{instance_id}/resume", headers=HERE)
        assert (answer.status_code, tracker.is_quiet) == (200, False)

        async def told() -> list[str]:
            return [str(event.details["by"]) for event in await tracker.recent_events() if event.type == "control"]

        found = await wait_until(lambda: both(told), description="both orders are events")
        assert all(by.startswith("ann at ") for by in found)


async def both(told):
    found = await told()
    return found if len(found) == 2 else None


async def test_the_stacks_of_a_worker_name_the_line_at_which_each_job_waits(mount, tracker):
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "one", "two")
        client = mount(authorize=lets_act)
        stacks = (await client.post(f"/api/v1/instances/{instance_id}/stacks", headers=HERE)).json()["stacks"]
        assert sum(group["count"] for group in stacks["jobs"]) == 2
        assert [thread["name"] for thread in stacks["threads"] if thread["name"] == "MainThread"] == ["MainThread"]


async def test_an_order_needs_its_own_right_and_a_worker_that_is_there(mount, tracker):
    async def may_quiet(request):
        return {"quiet"}

    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "one")
        for authorize, name, status in ((lets_read, "quiet", 405), (may_quiet, "stop", 405), (may_quiet, "stacks", 405)):
            answer = await mount(authorize=authorize).post(f"/api/v1/instances/{instance_id}/{name}", headers=HERE)
            assert (answer.status_code, tracker.is_quiet) == (status, False), name
        client = mount(authorize=lets_act)
        assert (await client.post(f"/api/v1/instances/{instance_id}/quiet", headers={"sec-fetch-site": "cross-site"})).status_code == 403
        for name in ("quiet", "resume", "stop", "stacks"):
            answer = await client.post(f"/api/v1/instances/unknown:1:ab/{name}", headers=HERE)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found"), name
        assert (await client.post(f"/api/v1/instances/{instance_id}/quiet", headers=HERE, json={"cron": False})).status_code == 400


async def test_a_worker_that_takes_no_orders_says_so(mount, make_tracker):
    tracker = make_tracker(control=False)
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "one")
        answer = await mount(of=tracker, authorize=lets_act).post(f"/api/v1/instances/{instance_id}/quiet", headers=HERE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "refused")


async def test_a_person_makes_a_worker_quiet_and_reads_its_stacks(serve_here, eyes: Eyes, tracker):
    async with AsyncExitStack() as stack:
        instance_id = await with_jobs(stack, tracker, "one")
        page = await eyes.open((await serve_here(allows_actions=True)).url)
        await is_live(page)
        await page.click("nav a[data-screen=instances]")
        await page.locator("tbody a", has_text=instance_id.split(":")[0]).first.click()
        await page.locator("#drawer .orders").get_by_role("button", name="Quiet").click()
        await page.locator("dialog").get_by_role("button", name="Quiet").click()
        await expect(page.locator("#drawer .stateline .state")).to_have_text("quiet")
        await wait_until(lambda: tracker.is_quiet, description="it is quiet")
        await page.locator("#drawer .orders").get_by_role("button", name="Stacks").click()
        await expect(page.locator("#drawer .seen .stack").first).to_be_visible()
        await page.locator("#drawer .orders").get_by_role("button", name="Resume").click()
        await page.locator("dialog").get_by_role("button", name="Resume").click()
        await expect(page.locator("#drawer .stateline .state")).to_have_text("alive")


async def test_a_job_is_aborted_and_what_does_not_run_or_cannot_be_aborted_is_said(mount, tracker, fleet: Fleet):
    await fleet.start_ready(tracker={**QUICK, **KNOWN})
    job = await fleet.pool.enqueue_job("hold", 600.0, _job_id="to-be-aborted")
    assert job is not None
    await fleet.in_flight("to-be-aborted")
    client = mount(of=fleet.tracker, authorize=lets_act, identify=lambda request: "ann")
    assert (await mount(of=fleet.tracker, authorize=lets_read).post("/api/v1/jobs/to-be-aborted/abort", headers=HERE)).status_code == 405
    assert (await client.post("/api/v1/jobs/to-be-aborted/abort", headers={"sec-fetch-site": "cross-site"})).status_code == 403
    answer = await client.post("/api/v1/jobs/to-be-aborted/abort", headers=HERE)
    assert (answer.status_code, answer.json()["abort"]["outcome"]) == (200, "aborted")
    answer = await client.post("/api/v1/jobs/unknown/abort", headers=HERE)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "plain")
        await wait_until(lambda: tracker.job("plain"), description="the job is listed")
        answer = await client.post("/api/v1/jobs/plain/abort", headers=HERE)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "unsupported")
    told = [event.details for event in await fleet.tracker.recent_events() if event.type == "control" and event.details["order"] == "abort"]
    assert told[-1]["by"].startswith("ann at ")
    await fleet.pool.delete("arq:result:to-be-aborted")


async def test_a_person_aborts_a_job_in_the_list_and_one_of_an_instance(serve_here, eyes: Eyes, fleet: Fleet):
    await fleet.start_ready(tracker={**QUICK, **KNOWN})
    for name in ("first-job", "second-job"):
        await fleet.pool.enqueue_job("hold", 600.0, _job_id=name)
        await fleet.in_flight(name)
    page = await eyes.open((await serve_here(allows_actions=True)).url)
    await is_live(page)
    await page.click("nav a[data-screen=jobs]")
    await page.get_by_role("button", name="Abort job first-job").click()
    dialog = page.locator("dialog")
    await expect(dialog).to_contain_text("it does not run again")
    await dialog.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Abort job first-job").click()
    await dialog.get_by_role("button", name="Abort", exact=True).click()
    await expect(page.locator(".toast").first).to_contain_text("first-job: it has ended, and does not run again.")
    await expect(page.get_by_role("button", name="Abort job first-job")).to_have_count(0)
    await page.click("nav a[data-screen=instances]")
    await page.locator("tbody a.id").first.click()
    await page.locator("#drawer").get_by_role("button", name="Abort job second-job").click()
    await dialog.get_by_role("button", name="Abort", exact=True).click()
    await page.mouse.move(2, 2)  # rows keep their places while the pointer is over them
    await expect(page.locator("#drawer")).to_contain_text("No job is in flight on it.")
    assert await fleet.tracker.job("second-job") is None
    await fleet.pool.delete("arq:result:first-job", "arq:result:second-job")
