"""Make the pictures of the README: ``make screenshots``, or ``python -m tests.web.screenshots [--all FOLDER]``.

The demo's workers run, one of them is blocked, and the system's Chromium looks. With ``--all`` every screen is looked at, in both
themes and three sizes, for whoever changes the page.
"""

import argparse
import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from playwright.async_api import Browser, Page, async_playwright

from async_tracker.cli.demo.load import Load
from async_tracker.cli.demo.stage import stage
from async_tracker.cli.target import Target
from async_tracker.web.serving import served
from benchmarks.browser import CHROMIUM, FLAGS
from tests.harness.forking import ROOT
from tests.web.browser import SCREENS

PICTURES = ROOT / "docs" / "pictures"
WATCHED_SECONDS = 130.0
"""So that the chart has some minutes to show."""
BLOCKED_SECONDS = 120.0
SIZES = ((390, 844), (768, 1024), (1440, 900))


async def main(folder: Path | None) -> None:
    """Set the stage, wait, look."""
    async with AsyncExitStack() as stack:
        set_up = await stack.enter_async_context(stage(Target(namespace="my_app"), workers="both"))
        set_up.start_workers()
        await set_up.wait_until_registered()
        for crew in set_up.crews:
            await stack.enter_async_context(crew)
        load = Load(set_up.crews, ledger=set_up.ledger, slow_for=4.0)
        running = asyncio.create_task(load.run())
        stack.callback(running.cancel)
        serving = await stack.enter_async_context(
            served(set_up.tracker, port=0, title="my_app", environment="prod", allows_actions=True, handles_signals=False)
        )
        playwright = await stack.enter_async_context(async_playwright())
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        stack.push_async_callback(browser.close)
        overview = await opened(browser, serving.url, theme="light", width=1440, height=900)
        phone = await opened(browser, serving.url, theme="light", width=390, height=844)
        dark = await opened(browser, serving.url, theme="dark", width=1440, height=900)
        await asyncio.sleep(WATCHED_SECONDS)
        await set_up.crews[0].enqueue("blocking-1", "blocking", BLOCKED_SECONDS)
        for page in (overview, phone, dark):
            await page.wait_for_selector(".banner", timeout=60_000)
        await asyncio.sleep(3.0)
        if folder is None:
            PICTURES.mkdir(exist_ok=True)
            await overview.screenshot(path=PICTURES / "overview.png")
            await phone.screenshot(path=PICTURES / "phone.png")
            await dark.click(".banner a")
            await dark.wait_for_selector("#drawer .stack")
            await asyncio.sleep(1.5)
            await dark.screenshot(path=PICTURES / "instance.png")
        else:
            await look_at_everything(browser, serving.url, folder)


async def opened(browser: Browser, url: str, *, theme: str, width: int, height: int) -> Page:
    """Open the page in a fresh profile."""
    page: Page = await browser.new_page(viewport={"width": width, "height": height}, color_scheme=theme)  # type: ignore[arg-type]
    await page.goto(url)
    await page.wait_for_selector(".live.ok", timeout=60_000)
    return page


async def look_at_everything(browser: Browser, url: str, folder: Path) -> None:
    """Take a picture of every screen, at every size, in both themes."""
    folder.mkdir(parents=True, exist_ok=True)
    base = url.partition("?")[0]
    for theme in ("light", "dark"):
        for width, height in SIZES:
            page = await opened(browser, url, theme=theme, width=width, height=height)
            for screen in SCREENS:
                await page.goto(base + ("" if screen == "overview" else screen))
                await page.wait_for_selector(".screen :is(tbody tr, .card, .empty:not([hidden]))", timeout=60_000)
                await asyncio.sleep(0.3)
                await page.screenshot(path=folder / f"{screen}-{width}-{theme}.png")
            await page.close()


def run(arguments: Sequence[str] | None = None) -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.web.screenshots", description="Make the pictures of the README.")
    parser.add_argument("--all", type=Path, metavar="FOLDER", help="take every screen instead, into this folder")
    asyncio.run(main(parser.parse_args(arguments).all))


if __name__ == "__main__":
    run()
