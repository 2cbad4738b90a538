"""A real browser: Debian's Chromium, driven by playwright, which fails a test for whatever the page should not have done."""

import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from benchmarks.browser import CHROMIUM, FLAGS

SCREENS = ("overview", "instances", "jobs", "orphans", "quarantine", "functions", "queues", "events", "doctor")
PATIENCE_MS = 30_000

TELL_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(`violates ${event.violatedDirective}: ${event.blockedURI}`));
addEventListener("unhandledrejection", (event) => console.error(`unhandled: ${event.reason}`));
"""

UNHURRIED = """
const real = Date.now, began = real(), later = window.setTimeout;
Date.now = () => began + (real() - began) / 20;
window.setTimeout = (what, wait, ...rest) => later(what, wait >= 5000 ? wait * 20 : wait, ...rest);
"""
"""A page in which the time for the second of two keys, and that for which a word is told, is that of our patience: a busy machine
needs seconds for a key."""


class Eyes:
    """Opens pages and notes what goes wrong in them. ``allowed`` are complaints that the test itself is the cause of."""

    def __init__(self, browser: Browser, stack: AsyncExitStack) -> None:
        self._browser = browser
        self._stack = stack
        self.complaints: list[str] = []
        self.allowed: list[str] = []

    async def context(self, *, width: int = 1440, height: int = 900, theme: str = "light", **options: Any) -> BrowserContext:
        """Open a fresh profile."""
        size = {"width": width, "height": height}
        made = await self._browser.new_context(viewport=size, color_scheme=theme, **options)  # type: ignore[arg-type]
        self._stack.push_async_callback(made.close)
        await made.add_init_script(TELL_VIOLATIONS)
        made.set_default_timeout(PATIENCE_MS)
        return made

    async def open(self, url: str, *, context: BrowserContext | None = None, **options: Any) -> Page:
        """Open a page, in a fresh profile unless one is given."""
        page = await (context or await self.context(**options)).new_page()
        page.on("console", lambda message: self.complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.complaints.append(f"{error}"))
        page.on("dialog", lambda dialog: self.complaints.append(f"a dialog says {dialog.message}"))
        await page.goto(url)
        return page

    def check(self) -> None:
        """Fail for what was not expected."""
        found = [text for text in self.complaints if not any(re.search(pattern, text) for pattern in self.allowed)]
        assert found == []


@pytest.fixture(scope="session")
async def browser(anyio_backend: str) -> AsyncIterator[Browser]:
    if not CHROMIUM:
        pytest.skip("needs a browser: apt-get install --no-install-recommends chromium (or CHROMIUM=/path/to/it)")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        await browser.close()


@pytest.fixture
async def eyes(browser: Browser) -> AsyncIterator[Eyes]:
    async with AsyncExitStack() as stack:
        made = Eyes(browser, stack)
        yield made
    made.check()


async def is_live(page: Page) -> None:
    """Wait until the page is told by the server."""
    await page.wait_for_selector(".live.ok")


@contextmanager
def asleep() -> Iterator[None]:
    """Stop every process that runs scripts of a page, or of a worker of pages, as a machine does that sleeps; go on after the block."""
    stopped = [pid for pid, command in descendants(os.getpid()).items() if "--type=renderer" in command]
    assert stopped
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


def descendants(pid: int) -> dict[int, str]:
    """Give the command line of each process that this one has started, or that one of those has."""
    found: dict[int, str] = {}
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for name in child.read_text().split():
            try:
                found[int(name)] = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode()
                found |= descendants(int(name))
            except OSError:  # it has ended since
                continue
    return found
