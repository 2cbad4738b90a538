"""What people see, in a real browser, while real workers are killed, blocked and quarantined."""

import asyncio
import re
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest
from axe_playwright_python import async_playwright as axe_package
from playwright.async_api import Page, expect

from async_tracker import Tracker
from tests.crash.fleet import QUICK, SWIFT, Fleet
from tests.harness.settings import KNOWN
from tests.harness.wait import wait_until
from tests.web.browser import PATIENCE_MS, SCREENS, UNHURRIED, Eyes, is_live
from tests.web.test_api import with_jobs
from tests.web.test_live import HOST

HOSTILE = "<img src=x onerror=alert(1)>\"'&{{7*7}}"

expect.set_options(timeout=PATIENCE_MS)


async def test_a_kill_is_seen_and_its_job_comes_back(fleet: Fleet, serve_here, eyes: Eyes):
    await fleet.start_ready(2, tracker=SWIFT)
    job_id = await fleet.enqueue("interrupted", job_id="to-be-killed")
    victim = await fleet.running(job_id)
    dead = await fleet.instance_of(victim)
    assert dead is not None
    served = await serve_here()
    page = await eyes.open(served.url)
    await is_live(page)
    await page.click("nav a[data-screen=jobs]")
    row = page.locator("tbody tr", has_text=job_id)
    await expect(row).to_contain_text(f"{dead.pid}")
    victim.kill()
    await page.goto(f"{served.base}events")
    await expect(page.locator("tbody tr", has_text="instance dead").filter(has_text=str(dead.pid))).to_be_visible()
    await expect(page.locator("tbody tr", has_text="recovered").filter(has_text=job_id)).to_be_visible()
    await page.goto(f"{served.base}instances")
    await expect(page.locator("tbody tr", has_text=f":{dead.pid}:")).to_have_count(0)
    await expect(page.locator("tbody tr .state.ok")).to_have_count(1)
    await fleet.succeeded(job_id)


async def test_a_blocked_loop_is_told_with_its_line_and_the_banner_goes_when_it_is_over(
    fleet: Fleet, serve_here, eyes: Eyes, tmp_path: Path
):
    await fleet.start_ready(tracker=QUICK)
    served = await serve_here()
    page = await eyes.open(served.url)
    await is_live(page)
    await expect(page.locator(".attention")).to_contain_text("Nothing")
    await fleet.enqueue("block_until_told", str(tmp_path / "end"))
    banner = page.locator(".banner.warn")
    await expect(banner).to_contain_text("is blocked for")
    await expect(banner).to_contain_text("app.py")
    await banner.locator("a").click()
    await expect(page.locator("#drawer .stack .on")).to_contain_text("block")
    await expect(page.locator("#drawer .stateline .state")).to_have_text("stalled")
    await expect(page.locator("main tbody tr .state.warn")).to_have_count(1)
    (tmp_path / "end").touch()
    await expect(page.locator("main tbody tr .state.ok")).to_have_count(1)
    await page.go_back()
    await expect(page.locator("#drawer")).to_be_hidden()
    await expect(page.locator(".banner")).to_have_count(0)
    await expect(page.locator(".attention")).to_contain_text("Nothing")


@asynccontextmanager
async def hostile_namespace(fleet: Fleet, redis_url: str, namespace: str) -> Any:
    """Have every column hold markup: instances, jobs, functions, queues, quarantine, events."""
    settings = {**SWIFT, "max_recoveries": 0, "tags": [HOSTILE]}
    await fleet.start_ready(tracker=settings)
    watcher = await fleet.start_ready(tracker=settings, worker={"queue_name": HOSTILE})
    await fleet.pool.enqueue_job("pill", _job_id=f"pill-{HOSTILE}")
    await fleet.pool.enqueue_job("hold", 600.0, _job_id=f"hold-{HOSTILE}", _queue_name=HOSTILE)
    await wait_until(fleet.tracker.quarantined, timeout=60.0, description="the pill is quarantined")
    assert watcher
    tracker = Tracker(
        namespace=namespace,
        redis_options={"url": redis_url},
        instance_id=HOSTILE,
        tags=(HOSTILE,),
        queue=HOSTILE,
        record_args=True,
        recover=False,
        **KNOWN,
    )
    async with (
        tracker,
        tracker.register(queue=HOSTILE, concurrency=4, functions=[HOSTILE]),
        tracker.track(HOSTILE, function=HOSTILE, queue=HOSTILE, timeout=0.001) as job,
    ):
        await job.progress(0.5, HOSTILE)
        yield


@pytest.mark.timeout(300)  # axe looks at twelve screens
@pytest.mark.lasts
async def test_no_screen_violates_the_rules_for_people_nor_takes_markup_for_more_than_text_nor_scrolls_sideways(
    fleet: Fleet, serve_here, eyes: Eyes, redis_url, namespace
):
    """axe finds nothing, with the content security policy in force, on any screen, with something opened, and in a dialog; in both
    themes, of which the other has the same elements: of these it is asked about colours alone."""
    async with hostile_namespace(fleet, redis_url, namespace):
        served = await serve_here(allows_actions=True, title=HOSTILE, environment=HOSTILE)
        axe = axe_package.Axe()
        page = await eyes.open(served.url)
        for screen in (*SCREENS, f"instances?open={await own_instance(fleet)}", "jobs?open=hold", "events?type=quarantined", "?keys"):
            if screen != "overview":
                await page.goto(served.base + ("" if screen == "?keys" else screen))
            await is_live(page)
            await page.wait_for_selector(DRAWN)
            if screen == "?keys":
                await page.keyboard.press("?")
                await page.wait_for_selector("dialog[open]")
            for theme, about in (("light", ALL_RULES), ("dark", RULES_ABOUT_COLOURS)):
                await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
                found = await axe.run(page, options={"runOnly": about, "resultTypes": ["violations"]})
                assert len(found.response["passes"]) > (10 if theme == "light" else 0)
                problems = [(item["id"], [node["html"][:160] for node in item["nodes"]][:3]) for item in found.response["violations"]]
                assert problems == [], (screen, theme)
            if screen in SHOWN_HOSTILE:
                await expect(page.locator(SHOWN_HOSTILE[screen]).filter(has_text=HOSTILE[:10]).first).to_be_visible()
            assert await page.locator("main img, main script, header img, #drawer img").count() == 0, screen
            for width in (320, 390, 768, 1440, 3840):
                await page.set_viewport_size({"width": width, "height": 800})
                inside, window = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
                assert inside <= window, (screen, width)
                if screen in ("instances", "jobs") and width == 390:
                    moved, column = await page.evaluate(SCROLL_THE_TABLE)
                    assert (moved > 0, column) == (True, 0), "the table moves within itself, and its first column stays"


SCROLL_THE_TABLE = """() => {
const table = document.querySelector(".table .scroll"), first = table.querySelector("tbody th");
const before = first.getBoundingClientRect().left;
table.scrollLeft = 120;
return [table.scrollLeft, Math.round(first.getBoundingClientRect().left - before)];
}"""
ALL_RULES = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
RULES_ABOUT_COLOURS = {"type": "rule", "values": ["color-contrast", "link-in-text-block"]}
DRAWN = ".screen :is(tbody tr, .card, .empty:not([hidden]))"
SHOWN_HOSTILE = {
    "overview": "header .ns",
    "instances": "tbody .sub",
    "jobs": "tbody th a",
    "functions": "tbody th a",
    "quarantine": "tbody th a",
    "events?type=quarantined": "tbody td a",
}


async def own_instance(fleet: Fleet) -> str:
    return (await fleet.tracker.instances())[0].instance_id


async def test_rows_keep_their_place_under_the_pointer_while_ticked_and_while_paused(serve_here, eyes: Eyes, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "b-1", "b-2")
        served = await serve_here()
        page = await eyes.open(served.at("jobs?sort=id"))
        first = page.locator("tbody tr").first
        await expect(first).to_contain_text("b-1")
        await first.hover()
        async with tracker.track("a-0", function="send_email"):
            notice = page.locator(".notice")
            await expect(notice).to_have_text("1 new · show")
            await expect(first).to_contain_text("b-1")
            await expect(page.locator("tbody tr")).to_have_count(2)
            await page.mouse.move(5, 400)
            await expect(first).to_contain_text("a-0")
            await expect(notice).to_be_hidden()
            await page.keyboard.press("p")
            await expect(page.locator(".live .word")).to_have_text("paused")
        await asyncio.sleep(2.5)
        await expect(page.locator("tbody tr")).to_have_count(3)
        await expect(first).to_have_class("gone")
        await expect(page.locator(".notice")).to_have_text("changed · show")
        await page.keyboard.press("p")
        await expect(page.locator("tbody tr")).to_have_count(2)
        async with tracker.track("c-9", function="convert") as job:
            await expect(page.locator("tbody tr")).to_have_count(3)
            await page.evaluate(NOTE_WHAT_CHANGES)
            await job.progress(0.5, "half way")
            await expect(page.locator("tbody tr", has_text="c-9")).to_contain_text("half way")
            assert await page.evaluate("window.changed") == ["c-9: Progress"], "of all rows and cells this one was drawn anew"


NOTE_WHAT_CHANGES = """() => {
window.changed = [];
const heads = [...document.querySelectorAll("thead th")].map((head) => head.textContent);
const note = ({ target }) => {
  const element = target instanceof Element ? target : target.parentElement;
  if (element.closest("time")) return;  // the clock counts on
  const cell = element.closest("td, th"), name = element.closest("tr")?.querySelector("th").textContent;
  const place = `${name}: ${cell ? heads[cell.cellIndex] : element.tagName}`;
  if (!window.changed.includes(place)) window.changed.push(place);
};
const everything = { subtree: true, childList: true, characterData: true, attributes: true };
new MutationObserver((records) => records.forEach(note)).observe(document.querySelector("tbody"), everything);
}"""


async def test_what_is_asked_for_is_shown_whatever_the_pointer_does(serve_here, eyes: Eyes, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "alpha", "beta")
        served = await serve_here()
        page = await eyes.open(served.at("jobs"))
        await expect(page.locator("tbody tr")).to_have_count(2)
        await page.locator("tbody tr").first.hover()
        await page.keyboard.press("/")
        await page.keyboard.type("bet")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator("tbody tr")).to_contain_text("beta")
        await page.keyboard.press("Escape")
        await page.keyboard.press("p")
        await page.click("nav a[data-screen=overview]")
        await expect(page.locator(".card").first).to_be_visible()


async def test_everything_can_be_done_by_keyboard_alone(fleet: Fleet, serve_here, eyes: Eyes):
    settings = {**SWIFT, "max_recoveries": 0}
    await fleet.start_ready(tracker=settings)
    await fleet.start_ready(tracker=settings, worker={"queue_name": "elsewhere"})
    await fleet.pool.enqueue_job("pill", _job_id="pill-1")
    await wait_until(fleet.tracker.quarantined, timeout=60.0, description="the pill is quarantined")
    served = await serve_here(allows_actions=True)
    context = await eyes.context()
    await context.add_init_script(UNHURRIED)
    page = await eyes.open(served.url, context=context)
    await is_live(page)
    for key, screen in (("i", "instances"), ("j", "jobs"), ("q", "quarantine")):
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        await page.wait_for_url(f"**/{screen}")
    await page.wait_for_selector("tbody tr")
    await page.keyboard.press("j")
    await page.keyboard.press("Enter")
    await expect(page.locator("#drawer")).to_contain_text("In quarantine")
    await page.wait_for_url(re.compile("open=pill-1"))
    await page.keyboard.press("Escape")
    await expect(page.locator("#drawer")).to_be_hidden()
    await page.keyboard.press("g")
    await page.keyboard.press("q")
    await page.wait_for_selector("tbody tr")
    await page.keyboard.press("j")
    await page.keyboard.press("x")
    await expect(page.locator(".bulk")).to_contain_text("1 ticked")
    await page.locator(".bulk button", has_text="Drop").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("dialog h2")).to_have_text("Forget 1 job for good, payload included?")
    await page.locator("dialog button", has_text="Drop").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".toast")).to_have_text("1 job is forgotten.")
    await expect(page.locator(".empty h2")).to_have_text("Nothing is quarantined")
    assert await fleet.tracker.quarantined() == []
    await page.goto(f"{served.base}events?type=action")
    await expect(page.locator("tbody tr").first).to_contain_text("action drop")
    await page.keyboard.press("/")
    await page.keyboard.type("nothing like it")
    await page.wait_for_url(re.compile("q=nothing"))
    await expect(page.locator(".empty h2")).to_have_text("No event matches")


async def test_single_keys_are_off_in_a_field_and_can_be_switched_off(serve_here, eyes: Eyes):
    context = await eyes.context()
    await context.add_init_script(UNHURRIED)
    page = await eyes.open((await serve_here()).url, context=context)
    await is_live(page)
    await page.keyboard.press("g")
    await page.keyboard.press("i")
    await page.wait_for_selector(".filters input")
    await expect(page.locator(".empty h2")).to_have_text("No instance is registered")
    await page.keyboard.press("/")
    await page.keyboard.type("pt?gj")
    assert await page.input_value(".filters input") == "pt?gj"
    await expect(page.locator("dialog")).to_have_count(0)
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await page.click("dialog input[type=checkbox]")
    await page.keyboard.press("Escape")
    await page.keyboard.press("p")
    assert await page.get_attribute("header [aria-pressed]", "aria-pressed") == "false"


async def test_redis_away_leaves_the_page_and_says_since_when_and_why(serve, eyes: Eyes, wire, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        served = serve(url=wire.url)
        wire.refuse()
        page = await eyes.open(served.url)
        await expect(page.locator("#bar")).to_contain_text("Redis is away since")
        await expect(page.locator(".attention")).to_contain_text("Nothing is known yet")
        await expect(page.locator(".card").first).to_contain_text("—")
        wire.accept()
        await is_live(page)
        await expect(page.locator(".attention")).to_contain_text("Nothing: every instance beats")
        await page.click("nav a[data-screen=jobs]")
        await expect(page.locator("tbody tr")).to_have_count(1)
        wire.refuse()
        await expect(page.locator("#bar")).to_contain_text("Redis is away since")
        await expect(page.locator("#bar")).to_contain_text("Jobs run on")
        await expect(page.locator("tbody tr")).to_have_count(1)
        await expect(page.locator(".live")).to_have_class("live bad")
        wire.accept()
        await expect(page.locator("#bar")).to_be_hidden()
        await is_live(page)


async def test_a_server_that_is_killed_and_started_again_has_its_pages_back_and_with_another_token_they_say_what_to_do(
    serve, eyes: Eyes, tmp_path, take_port
):
    """Two tabs look on while the server goes: they come back by themselves where the token is the same, and are told where it is not."""
    (tmp_path / "token").write_text("kq8Zr1xPw2Vb7Nf4Ls9Td3Gh6Jm0Yc5A")
    port = ("--port", str(take_port()))
    eyes.allowed += ["401", "ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"]
    served = serve(*port, "--token-file", str(tmp_path / "token"))
    context = await eyes.context()
    pages = [await eyes.open(f"{served.base}?token=kq8Zr1xPw2Vb7Nf4Ls9Td3Gh6Jm0Yc5A", context=context)]
    pages.append(await eyes.open(f"{served.base}doctor", context=context))
    for page in pages:
        await is_live(page)
    served.process.kill()
    for page in pages:
        await expect(page.locator("#bar")).to_contain_text("The server of this page does not answer")
        await expect(page.locator(".live")).to_have_class("live bad")
    served = serve(*port, "--token-file", str(tmp_path / "token"))
    for page in pages:
        await expect(page.locator("#bar")).to_be_hidden()
        await is_live(page)
    served.process.kill()
    served = serve(*port)
    for page in pages:
        await expect(page.locator("#bar")).to_contain_text(
            "the server was started again: open the address that async-tracker serve has printed"
        )
        await expect(page.locator("body")).to_have_class("old")
    await expect(pages[1].locator("tbody tr").first).to_be_visible()  # what was known stays
    refused = await context.new_page()
    answer = await refused.goto(f"{served.base}?token=kq8Zr1xPw2Vb7Nf4Ls9Td3Gh6Jm0Yc5A")
    assert answer is not None
    assert answer.status == 401
    await expect(refused.locator("main")).to_contain_text("this token is not the one of this process: open the address")
    await eyes.open(served.url, context=context)
    for page in pages:
        await expect(page.locator("#bar")).to_be_hidden()
        await is_live(page)


async def test_eight_tabs_of_one_browser_are_all_live_and_share_one_stream(serve_here, eyes: Eyes):
    served = await serve_here(allows_actions=True)
    context = await eyes.context()
    pages = [await eyes.open(served.url, context=context)]
    for screen in SCREENS[1:8]:
        pages.append(await eyes.open(served.base + screen, context=context))
    for page in pages:
        await is_live(page)
    answer = await pages[-1].evaluate(
        """async () => (await fetch("api/v1/recover", { method: "POST", body: '{"dry_run":true}' })).status"""
    )
    assert answer == 200
    asked = await pages[0].evaluate("performance.getEntriesByType('resource').filter((entry) => entry.name.includes('api/v1/live')).length")
    assert asked == 0  # the shared worker asks


async def test_without_a_shared_worker_two_tabs_hold_a_stream_and_the_others_ask(serve_here, eyes: Eyes):
    served = await serve_here()
    context = await eyes.context()
    await context.add_init_script("delete window.SharedWorker")
    pages = [await eyes.open(served.url, context=context)]
    for _ in range(3):
        pages.append(await eyes.open(served.base, context=context))
    for page in pages:
        await is_live(page)
    polls = "performance.getEntriesByType('resource').filter((entry) => entry.name.includes('once=1')).length"

    async def asks() -> bool:
        return [await page.evaluate(polls) > 1 for page in pages].count(True) == 2

    await wait_until(asks, timeout=30.0, description="two of four ask every five seconds")


async def test_a_hidden_tab_asks_for_nothing(serve_here, eyes: Eyes, redis_client):
    page = await eyes.open((await serve_here()).url)
    await is_live(page)
    await page.evaluate("Object.defineProperty(document, 'hidden', { value: true }); document.dispatchEvent(new Event('visibilitychange'))")

    async def rests() -> bool:
        before = (await redis_client.info("stats"))["total_commands_processed"]
        await asyncio.sleep(1.5)
        return bool((await redis_client.info("stats"))["total_commands_processed"] - before <= 1)

    await wait_until(rests, timeout=30.0, description="Redis is not asked any more")


async def test_ages_are_counted_from_the_servers_clock_though_the_browsers_is_an_hour_off(serve_here, eyes: Eyes, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        served = await serve_here()
        context = await eyes.context()
        await context.add_init_script("const real = Date.now; Date.now = () => real() + 3600e3;")
        page = await eyes.open(served.at("jobs"), context=context)
        await expect(page.locator("tbody time")).to_have_text(re.compile(r"^\d+ s$|^1 min"))
        await expect(page.locator(".live .word")).to_have_text(re.compile(r"^live · \d"))
        assert re.search(r"\(\d{4}-\d\d-\d\dT", await page.locator("tbody time").get_attribute("title") or "")
        await context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.locator("tbody th a").click()
        await page.locator("#drawer .copy").first.click()
        await expect(page.locator(".toast")).to_have_text("Copied.")
        assert await page.evaluate("navigator.clipboard.readText()") == "one"


async def test_mounted_under_a_prefix_every_link_works_and_back_goes_back(workers, redis_url, namespace, eyes: Eyes, take_port):
    port = take_port()
    program = HOST.replace('"/tracker"', '"/ops/tracker"')
    host = workers.start_program([sys.executable, "-c", program, redis_url, namespace, str(port)])
    await anyio.to_thread.run_sync(host.wait_for_output, "Uvicorn running")
    page = await eyes.open(f"http://127.0.0.1:{port}/ops/tracker")
    await is_live(page)
    assert page.url.endswith("/ops/tracker/")
    for screen in SCREENS[1:]:
        await page.click(f"nav a[data-screen={screen}]")
        await page.wait_for_url(f"**/ops/tracker/{screen}")
        await expect(page.locator("h1")).to_have_text(screen.capitalize())
    await page.go_back()
    await expect(page.locator("h1")).to_have_text("Events")
    await page.reload()
    await expect(page.locator("h1")).to_have_text("Events")
    await is_live(page)
    host.ask_to_leave()


async def test_the_theme_is_the_systems_until_another_is_chosen(serve_here, eyes: Eyes):
    page = await eyes.open((await serve_here()).url)
    await is_live(page)
    for theme in ("light", "dark"):
        await page.emulate_media(color_scheme=theme)
        assert ((await background(page))[0] > 128) == (theme == "light")
    for chosen in ("light", "dark"):
        await page.click("header button:has-text('Theme')")
        for theme in ("light", "dark"):
            await page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            assert ((await background(page))[0] > 128) == (chosen == "light")
    await page.emulate_media(color_scheme="light")
    await page.reload()
    assert (await background(page))[0] < 128


async def background(page: Page) -> list[int]:
    color = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    return [int(part) for part in re.findall(r"\d+", color)]
