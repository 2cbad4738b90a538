"""A page that stood still, because its machine slept or its clock was set, says so, shows no age that it cannot know, and catches up."""

import asyncio
import re
from contextlib import AsyncExitStack

import pytest
from playwright.async_api import expect

from tests.web.browser import Eyes, asleep, is_live
from tests.web.test_api import with_jobs

SECONDS = re.compile(r"^\d+ s$|^\d+ min \d+ s$")
SET_THE_CLOCK = "(ahead) => { const real = Date.now.bind(Date); Date.now = () => real() + ahead; }"
NOTE_WHAT_WAS_OLD = """() => {
const note = () => document.body.classList.contains("old") && document.documentElement.setAttribute("data-was-old", "");
new MutationObserver(note).observe(document.body, { attributeFilter: ["class"] });
}"""
WAS_OLD = "html[data-was-old]"


async def test_a_page_that_wakes_before_its_server_answers_says_how_old_it_is_and_counts_nothing_on(serve, eyes: Eyes, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        served = serve()
        page = await eyes.open(served.at("jobs"))
        await is_live(page)
        await expect(page.locator("tbody time")).to_have_text(SECONDS)
        served.process.suspend()
        try:
            await page.evaluate(SET_THE_CLOCK, 3 * 3600e3)
            await expect(page.locator(".live .word")).to_have_text(re.compile("^old · 3 h"))
            await expect(page.locator("body")).to_have_class("old")
            await expect(page.locator("#bar")).to_contain_text("This page stood still: what stands here is 3 h")
            assert SECONDS.match(await page.inner_text("tbody time"))  # as it was told: whether the job still runs is not known
        finally:
            served.process.resume()
        await is_live(page)
        await expect(page.locator("#bar")).to_be_hidden()
        await expect(page.locator("tbody time")).to_have_text(SECONDS)


async def test_a_clock_that_is_set_while_the_page_is_open_is_noticed(serve_here, eyes: Eyes, tracker):
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        page = await eyes.open((await serve_here()).at("jobs"))
        await is_live(page)
        await page.evaluate(NOTE_WHAT_WAS_OLD)
        for hours in (1, -1):
            await page.evaluate(SET_THE_CLOCK, hours * 3600e3)
            await page.wait_for_selector(WAS_OLD)
            await is_live(page)
            await expect(page.locator("tbody time")).to_have_text(SECONDS)
            await expect(page.locator(".live .word")).to_have_text(re.compile(r"^live · \d"))
            await page.evaluate("document.documentElement.removeAttribute('data-was-old')")


@pytest.mark.parametrize("shares", [True, False])
async def test_two_tabs_of_a_machine_that_slept_catch_up_by_themselves(serve_here, eyes: Eyes, tracker, shares: bool):
    """Their processes stand still, those of the shared worker too; without it each tab has a stream of its own."""
    async with AsyncExitStack() as stack:
        await with_jobs(stack, tracker, "one")
        served = await serve_here()
        context = await eyes.context()
        if not shares:
            await context.add_init_script("delete window.SharedWorker")
        tabs = [await eyes.open(served.at("jobs"), context=context) for _ in range(2)]
        for page in tabs:
            await expect(page.locator("tbody tr")).to_have_count(1)
            await is_live(page)
            await page.evaluate(NOTE_WHAT_WAS_OLD)
        with asleep():
            await asyncio.sleep(6.0)  # longer than what counts as standing still
            await stack.enter_async_context(tracker.track("meanwhile", function="send_email"))
        for page in tabs:
            await page.wait_for_selector(WAS_OLD)
            await expect(page.locator("tbody tr")).to_have_count(2)
            await is_live(page)
            await expect(page.locator("tbody tr", has_text="meanwhile").locator("time")).to_have_text(SECONDS)
