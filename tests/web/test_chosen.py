"""What a person chooses is what is acted on: the rows that are ticked, or all that match, and never more than was agreed to."""

from playwright.async_api import expect

from tests.crash.fleet import SWIFT, Fleet
from tests.harness.wait import wait_until
from tests.web.browser import Eyes, is_live
from tests.web.conftest import lets_act

HERE = {"sec-fetch-site": "same-origin"}
WATCHING = {**SWIFT, "recover": False}


async def with_orphans(fleet: Fleet) -> None:
    """Have four orphans which no instance recovers by itself: three of the function hold, one of another."""
    await fleet.start_ready(tracker=WATCHING, worker={"queue_name": "elsewhere"})
    (victim,) = await fleet.start_ready(tracker=WATCHING)
    for job_id in ("hold-a", "hold-b", "hold-c"):
        await fleet.pool.enqueue_job("hold", 600.0, _job_id=job_id)
    await fleet.pool.enqueue_job("interrupted", _job_id="other")
    for job_id in ("hold-a", "hold-b", "hold-c", "other"):
        await fleet.in_flight(job_id)
    victim.kill()
    await wait_until(lambda: orphans(fleet, 4), timeout=60.0, description="all four are orphans")


async def orphans(fleet: Fleet, count: int) -> list[str]:
    found = sorted(item.job_id for item in await fleet.tracker.orphans())
    return found if len(found) == count else []


async def test_orphans_are_recovered_by_ticks_by_filter_and_all_and_the_rest_stays(fleet: Fleet, serve_here, mount, eyes: Eyes):
    await with_orphans(fleet)
    assert [plan.job_id for plan in await fleet.tracker.recover(dry_run=True, only=["hold-b", "unknown"])] == ["hold-b"]
    client = mount(of=fleet.tracker, authorize=lets_act)
    plan = (await client.post("/api/v1/recover", headers=HERE, json={"dry_run": True, "filter": {"function": "hold"}, "limit": 1})).json()
    assert (plan["chosen"], plan["total"], sum(plan["actions"].values()), len(plan["recoveries"])) == (3, 3, 3, 1)
    for body, status in (
        ({"filter": {"function": "hold"}}, 400),  # how many were agreed to is not said
        ({"filter": {"function": "hold"}, "most": 2}, 409),  # they are three
        ({"filter": {"colour": "red"}, "most": 9}, 400),
        ({"jobs": "hold-a"}, 400),
        ({"jobs": ["hold-a"], "filter": {}}, 400),
    ):
        answer = await client.post("/api/v1/recover", headers=HERE, json=body)
        assert answer.status_code == status, (body, answer.text)
    assert len(await fleet.tracker.orphans()) == 4

    served = await serve_here(allows_actions=True)
    page = await eyes.open(served.url)
    await is_live(page)
    await page.click("nav a[data-screen=orphans]")
    await page.get_by_label("Tick hold-a").check()
    await page.get_by_role("button", name="Recover 1 ticked…").click()
    await expect(page.locator("dialog h2")).to_have_text("Recover 1 orphan now?")
    await expect(page.locator("dialog")).to_contain_text("1 queued again")
    await page.locator("dialog").get_by_role("button", name="Recover").click()
    await expect(page.locator(".toast")).to_have_text("1 orphan settled.")
    await expect(page.locator("tbody tr")).to_have_count(3)
    assert await orphans(fleet, 3) == ["hold-b", "hold-c", "other"]
    assert [await fleet.pool.exists(f"arq:in-progress:{name}") for name in ("hold-a", "hold-b", "hold-c", "other")] == [0, 1, 1, 1]

    await page.goto(f"{served.base}orphans?function=hold")
    await page.get_by_role("button", name="Recover all 2 that match…").click()
    await expect(page.locator("dialog")).to_contain_text("All that match: function hold.")
    await page.locator("dialog").get_by_role("button", name="Recover").click()
    await expect(page.locator(".empty h2")).to_have_text("No orphan matches")
    assert await orphans(fleet, 1) == ["other"]
    assert [item.job_id for item in await fleet.tracker.recover()] == ["other"]  # its instance was kept for it
    assert await fleet.tracker.orphans() == []
    told = [event.details for event in await fleet.tracker.recent_events() if event.type == "action"]
    assert [(item["jobs"], item["chosen"]) for item in told] == [(1, "ticked"), (2, "function=hold")]


async def test_quarantined_jobs_are_decided_together_and_those_that_must_stay_are_named(fleet: Fleet, mount):
    settings = {**SWIFT, "max_recoveries": 0}
    await fleet.start_ready(tracker=settings, worker={"queue_name": "elsewhere"})
    await fleet.start_ready(2, tracker=settings, worker={"max_jobs": 1})
    for name in ("pill-1", "pill-2"):
        await fleet.pool.enqueue_job("pill", _job_id=name)

    async def both() -> bool:
        return len(await fleet.tracker.quarantined()) == 2

    await wait_until(both, timeout=60.0, description="both pills are quarantined")
    client = mount(of=fleet.tracker, authorize=lets_act)

    async def may_recover(request):
        return {"recover"}

    other = mount(of=fleet.tracker, authorize=may_recover)
    for name in ("retry", "drop"):
        assert (await other.post(f"/api/v1/quarantine/{name}", headers=HERE, json={"jobs": ["pill-1"]})).status_code == 405
        assert (await client.post(f"/api/v1/quarantine/{name}", headers=HERE)).status_code == 400
    answer = (await client.post("/api/v1/quarantine/retry", headers=HERE, json={"jobs": ["pill-1", "none"]})).json()
    assert (answer["retried"], [item["job_id"] for item in answer["stayed"]]) == (["pill-1"], ["none"])
    assert await fleet.pool.zscore("arq:queue", "pill-1") is not None
    drop = {"filter": {"q": "pill"}, "most": 1}
    assert (await client.post("/api/v1/quarantine/drop", headers=HERE, json=drop)).json()["dropped"] == ["pill-2"]
    assert await fleet.tracker.quarantined() == []
    assert (await client.post("/api/v1/quarantine/drop", headers=HERE, json=drop)).json()["dropped"] == []
